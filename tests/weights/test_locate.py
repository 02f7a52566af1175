"""Names become paths, from this machine alone."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfumato.errors import ModelFileError, ModelNotFoundError, OutputError
from sfumato.weights.load import load
from sfumato.weights.locate import add_alias, aliases, embedded, home, hub_cache, locate, remove_alias

COMMIT = "39593d5650112b4cc580433f6b0435385882d819"
OTHER = "a" * 40


@pytest.fixture
def cache(own_home: Path) -> Path:
    """A Hugging Face cache with one repository of two revisions."""
    root = hub_cache() / "models--org--name"
    for commit in (COMMIT, OTHER):
        (root / "snapshots" / commit).mkdir(parents=True)
    (root / "refs" / "pr").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    (root / "refs" / "pr" / "1").write_text(OTHER + "\n")
    return root


@pytest.fixture
def environment() -> Iterator[None]:
    """The environment as it was, afterwards."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_a_path_is_itself(tmp_path: Path) -> None:
    assert locate(tmp_path) == tmp_path
    assert locate(str(tmp_path)) == tmp_path


def test_a_cached_repository_is_found_by_name_and_revision(cache: Path) -> None:
    main, other = cache / "snapshots" / COMMIT, cache / "snapshots" / OTHER
    assert locate("org/name") == main
    assert locate("org/name@main") == main
    assert locate("org/name@refs/main".replace("refs/", "")) == main
    assert locate("org/name@pr/1") == other
    assert locate("org/name", "pr/1") == other
    assert locate(f"org/name@{OTHER}") == other
    assert locate("org/name@39593d5") == main


@pytest.mark.parametrize("revision", ["../../etc", "..", "/etc/passwd", "fp16", "*", "3959*", "a b", ""])
def test_a_revision_that_is_not_there_is_refused_with_those_that_are(cache: Path, revision: str) -> None:
    if not revision:
        assert locate("org/name@") == cache / "snapshots" / COMMIT
        return
    with pytest.raises(ModelNotFoundError, match="revision"):
        locate("org/name", revision)


def test_a_missing_repository_gets_an_error_that_lists_where_was_looked(cache: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        locate("org/other")
    said = str(caught.value)
    assert all(place in said for place in (str(home() / "models.json"), str(hub_cache()), "org/other", "downloaded"))


ODD = ("../x/y", "org/../x", "a/b/c", "org\\name", "-", "~nobody/x", "~no-such-user/x", "org/..", "\0", "x" * 5000)


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_not_found_and_do_nothing_else(own_home: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        locate(name)


def test_the_cache_is_where_the_library_of_hugging_face_has_it(environment: None) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        os.environ.pop(name, None)
    assert hub_cache() == Path.home() / ".cache" / "huggingface" / "hub"
    os.environ["XDG_CACHE_HOME"] = "/x"
    assert hub_cache() == Path("/x/huggingface/hub")
    os.environ["HF_HOME"] = "/y"
    assert hub_cache() == Path("/y/hub")
    os.environ["HF_HUB_CACHE"] = "/z"
    assert hub_cache() == Path("/z")


def test_an_alias_leads_to_a_path_or_a_repository(cache: Path, tmp_path: Path) -> None:
    add_alias("here", tmp_path)
    add_alias("cached", "org/name@pr/1")
    assert aliases() == {"here": str(tmp_path), "cached": "org/name@pr/1"}
    assert locate("here") == tmp_path
    assert locate("cached") == cache / "snapshots" / OTHER
    remove_alias("here")
    with pytest.raises(ModelNotFoundError):
        locate("here")


def test_an_alias_is_not_replaced_silently_and_has_a_plain_name(tmp_path: Path) -> None:
    add_alias("mine", tmp_path)
    with pytest.raises(OutputError, match="taken"):
        add_alias("mine", tmp_path / "other")
    add_alias("mine", "org/name", overwrite=True)
    assert aliases()["mine"] == "org/name"
    for name in ("", "a/b", "a\\b"):
        with pytest.raises(OutputError, match="cannot be an alias"):
            add_alias(name, tmp_path)


def test_an_alias_that_leads_nowhere_and_one_mistyped_are_explained(tmp_path: Path) -> None:
    add_alias("dreamer", tmp_path / "gone.safetensors")
    with pytest.raises(ModelNotFoundError, match="the alias 'dreamer' leads to"):
        locate("dreamer")
    with pytest.raises(ModelNotFoundError, match="Did you mean 'dreamer'"):
        locate("dremer")
    with pytest.raises(ModelNotFoundError, match="Did you mean 'dreamer'"):
        remove_alias("dremer")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"aliases": []}', '{"aliases": {"a": 1}}', "[" * 100_000])
def test_a_damaged_list_of_aliases_is_an_error_that_names_it(text: str) -> None:
    home().mkdir(parents=True, exist_ok=True)
    (home() / "models.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"models\.json"):
        aliases()


def test_an_incomplete_snapshot_is_refused_and_one_with_a_single_file_is_that_file(cache: Path) -> None:
    folder = cache / "snapshots" / COMMIT
    with pytest.raises(ModelFileError, match=r"it has no model_index\.json; it has nothing"):
        load("org/name")
    (folder / "model.safetensors").write_bytes(b"<html>")
    with pytest.raises(ModelFileError, match=r"model\.safetensors: .* an HTML page"):
        load("org/name")
    (folder / "second.safetensors").write_bytes(b"<html>")
    with pytest.raises(ModelFileError, match=r"it has model\.safetensors, second\.safetensors"):
        load("org/name")


def test_the_embedded_model_has_a_name_too() -> None:
    inside = embedded()
    assert locate(inside.name) == inside
    with pytest.raises(ModelNotFoundError, match=f"Did you mean '{inside.name}'"):
        locate(inside.name + "s")
