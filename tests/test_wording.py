"""Wildcards and styles: found where they lie, filled in by the seed, and told where they are not there."""

from pathlib import Path

import pytest

from sfumato.errors import PromptError, RequestError
from sfumato.request import Region, Request
from sfumato.request.said import Said, read_said
from sfumato.wording import Shelf, filled_in, styled

STYLES = """name,prompt,negative_prompt
photo,"a photo of {prompt}, 35mm",cartoon
plain,,
bright,bright colours,dark
"""


@pytest.fixture
def books(tmp_path: Path) -> Shelf:
    first, second = tmp_path / "home", tmp_path / "webui"
    (first / "wildcards").mkdir(parents=True)
    (first / "wildcards" / "colour.txt").write_text("# colours\nred\n\n blue \n")
    (second / "extensions/sd-dynamic-prompts/wildcards/pets").mkdir(parents=True)
    (second / "extensions/sd-dynamic-prompts/wildcards/pets/small.txt").write_text("a __colour__ mouse\n", "utf-8-sig")
    (second / "wildcards").mkdir()
    (second / "wildcards" / "colour.txt").write_text("never\n")
    (second / "wildcards" / "empty.txt").write_text("# nothing\n")
    (first / "styles.csv").write_text(STYLES, "utf-8-sig")
    return Shelf((first, second))


def test_a_request_without_any_of_it_is_as_written(books: Shelf) -> None:
    assert filled_in(Request(prompt="a (cat:1.2) [x|y]", seed=1), books=books) == {}
    assert filled_in(Request(prompt="{a|b} __colour__", seed=1, dialect="plain"), books=books) == {}


def test_each_picture_is_drawn_from_its_own_seed(books: Shelf) -> None:
    request = Request(prompt=("__pets/small__", "{x|y|z}"), negative_prompt="{a|b|c|d}", seed=7, count=20)
    found = filled_in(request, books=books)
    assert set(found) == set(range(40))
    assert {found[index].prompt for index in range(20)} == {"a red mouse", "a blue mouse"}
    assert {found[index].prompt for index in range(20, 40)} == {"x", "y", "z"}
    alone = filled_in(Request(prompt="{x|y|z}", negative_prompt="{a|b|c|d}", seed=7 + 25), books=books)
    assert alone[0] == found[25]
    assert found == filled_in(request, books=books)


def test_a_name_with_a_star_is_any_of_the_files_that_fit_it(books: Shelf) -> None:
    """As dynamicprompts has it: over folders too, and a name alone is found in any folder."""
    assert books.lines("pets/*") == books.lines("pe*") == books.lines("small") == ("a __colour__ mouse",)
    assert set(books.lines("*")) == {"red", "blue", "a __colour__ mouse"}
    with pytest.raises(PromptError, match="no such wildcard"):
        books.lines("birds/*")


def test_regions_are_drawn_too(books: Shelf) -> None:
    regions = (Region("a __colour__ ball", (0, 0, 0.5, 1)), Region("sky", (0.5, 0, 0.5, 1)))
    found = filled_in(Request(prompt="x", regions=regions, seed=1, count=9), books=books)
    assert {each.regions[0] for each in found.values()} == {"a red ball", "a blue ball"}
    assert {each.regions[1] for each in found.values()} == {"sky"}


def test_styles_go_around_prompts_as_in_the_webui(books: Shelf) -> None:
    assert styled("a cat", "a photo of {prompt}, 35mm") == "a photo of a cat, 35mm"
    assert styled(" a cat ", " bright ") == "a cat, bright"
    assert styled("a cat", "") == "a cat"
    assert styled("", "bright") == "bright"
    request = Request(prompt="a cat", negative_prompt="ugly", styles=("photo", "bright"), seed=1)
    assert filled_in(request, books=books)[0] == Said("a photo of a cat, 35mm, bright colours", "ugly, cartoon, dark")
    plain = Request(prompt="{a|b}", styles=("bright",), seed=1, dialect="plain")
    assert filled_in(plain, books=books)[0].prompt == "{a|b}, bright colours"


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        ({"prompt": "__color__"}, PromptError, r"no such wildcard \(did you mean 'colour'\?\); put color.txt into"),
        ({"prompt": "__empty__"}, PromptError, "empty.txt is empty"),
        ({"styles": ("brihgt",)}, RequestError, r"no style \(did you mean 'bright'\?\)"),
    ],
)
def test_what_is_not_there_is_told_with_the_nearest(
    books: Shelf, fields: dict[str, object], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        filled_in(Request(seed=1, **fields), books=books)  # type: ignore[arg-type]


def test_what_is_no_text_or_no_list_of_styles_is_told(tmp_path: Path) -> None:
    (tmp_path / "wildcards").mkdir()
    (tmp_path / "wildcards" / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match=r"a.txt is not UTF-8 text"):
        filled_in(Request(prompt="__a__", seed=1), books=Shelf((tmp_path,)))
    (tmp_path / "styles.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RequestError, match="needs the columns name, prompt, negative_prompt"):
        filled_in(Request(styles=("x",), seed=1), books=Shelf((tmp_path,)))
    (tmp_path / "styles.csv").write_text("name,prompt\nx," + "a" * 140_000)
    with pytest.raises(RequestError, match=r"styles.csv is no list of styles: field larger than field limit"):
        filled_in(Request(styles=("x",), seed=1), books=Shelf((tmp_path,)))


def test_what_was_said_is_read_back_from_a_record() -> None:
    said = {3: Said("a", "b"), 4: Said("c", "", ("d", "e"))}
    record = {"words": [{"index": index, **each.to_dict()} for index, each in said.items()]}
    assert read_said(record) == said
    assert read_said({}) == {}
