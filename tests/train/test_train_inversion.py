"""Textual inversion: the new word's vectors are learnt, everything else is left, and the file works elsewhere."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny_start as tiny
import torch

import sfumato
from sfumato.errors import ConfigError
from sfumato.train import loop
from sfumato.train.config import read_config
from sfumato.train.inversion import InversionConfig, InversionTask, first_vectors, undecayed
from sfumato.train.plan import passes
from sfumato.weights.embeddings import load_embedding
from sfumato.weights.lora import networks_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations among the reference implementations
    import diffusers

CAPTION = "a photograph of <red>"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: tiny.start_model(kind, root) for kind in ("sd1", "sdxl")}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.plain_pictures(tmp_path_factory.mktemp("pictures"))


def sections(model: Path, pictures: Path, **inversion: Any) -> dict[str, dict[str, Any]]:
    return {
        "start": {"model": str(model)},
        "data": {"source": str(pictures), "caption": CAPTION},
        "inversion": {"token": "<red>", "vectors": 2, **inversion},
    }


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_an_interrupted_run_ends_with_the_bytes_of_one_that_was_not(
    models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str
) -> None:
    tiny.assert_interruption_changes_nothing("inversion", tmp_path, sections(models[kind], pictures))


def test_one_pass_and_several_give_the_same_gradients(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    tiny.assert_passes_change_nothing("inversion", tmp_path, sections(models["sd1"], pictures))


def test_the_vectors_begin_at_the_words_that_were_named_or_at_the_mean(models: dict[str, Path]) -> None:
    model = sfumato.load(models["sd1"])
    tokenizer, encoder = model.text.tokenizers[0], model.text.encoders[0]
    table = encoder.text_model.embeddings.token_embedding.weight
    ids = tokenizer.encode("a of")
    found = first_vectors(InversionConfig(token="x", vectors=len(ids) + 1, initial="a of"), tokenizer, encoder)
    assert torch.equal(found, table[[*ids, ids[0]]])
    mean = first_vectors(InversionConfig(token="x", vectors=2), tokenizer, encoder)
    torch.testing.assert_close(mean, table.mean(0).expand(2, -1))


@torch.no_grad()
def always_the_same(task: InversionTask) -> float:
    """The loss on samples with numbers, noise and levels that are always the same."""
    parts = [part for step in range(900, 908) for part in passes(task.config.run, step, 4 * step)]
    return sum(float(task.loss(part, task.inputs(part))[0]) for part in parts)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_only_the_new_rows_are_trained_and_they_change_what_is_heard(
    models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str
) -> None:
    given = sections(models[kind], pictures, initial="a")
    given["run"] = {**tiny.RUN, "output": str(tmp_path / "run"), "steps": 60, "microbatch": 4}
    given["optimizer"] = {**tiny.OPTIMIZER, "rate": 0.05, "weight_decay": 0.5}
    given["data"] = {**given["data"], "size": tiny.SIZE}
    (tmp_path / "run.toml").write_text(tiny.toml({**given, "loss": {"drop": 0.0}}))
    config = undecayed(read_config(tmp_path / "run.toml"))
    task = InversionTask(config)
    assert task.base.model is not None
    frozen = {**networks_of(task.base.model), "vae": task.base.autoencoder}
    before = {name: {k: v.clone() for k, v in each.state_dict().items()} for name, each in frozen.items()}
    was = always_the_same(task)
    loop.run(task, config)
    assert always_the_same(task) < 0.995 * was  # the rest of the network is random: a word cannot do more
    for name, network in frozen.items():
        assert all(torch.equal(value, before[name][key]) for key, value in network.state_dict().items())
    trained = [name for name, each in loop.Whole(task).networks.named_parameters()]
    assert trained == [f"{name}.vectors" for name in task.rows]
    [path] = (tmp_path / "run" / "export").iterdir()
    assert path.name == "red.safetensors"
    model = sfumato.load(models[kind], embeddings=[(path, "<red>")])
    with torch.no_grad():
        heard = model.text.encode(CAPTION, dialect="plain")
        taught = task.base.text.encode(CAPTION, dialect="plain")
    assert torch.equal(heard.context, taught.context)
    plain = sfumato.load(models[kind]).text.encode("a photograph of a a").context
    assert float((heard.context - plain).norm() / plain.norm()) > 1e-2


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_diffusers_hears_what_was_learnt_here(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    tiny.train("inversion", tmp_path / "run", {**sections(models["sd1"], pictures), "optimizer": {"rate": 0.1}})
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(models["sd1"])
    path = tmp_path / "run" / "export" / "red.safetensors"
    theirs.load_textual_inversion(str(path))
    expected, _ = theirs.encode_prompt(CAPTION, "cpu", 1, False)
    found = sfumato.load(models["sd1"], embeddings=[path]).text.encode(CAPTION, dialect="plain").context
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_kohyas_name_is_written_where_it_is_asked_for(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    given = sections(models["sd1"], pictures, dialect="kohya", token="my-cat!")
    given["data"]["caption"] = "a photograph of my-cat!"
    tiny.train("inversion", tmp_path / "run", {**given, "run": {"steps": 1}})
    found = load_embedding(tmp_path / "run" / "export" / "my-cat.safetensors")
    assert (found.word, found.count) == ("my-cat", 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"inversion": {"token": "two words"}}, r"inversion\.token is a word without white space.*'two words'"),
        ({"inversion": {"vectors": 0}}, r"inversion\.vectors is 0; it is from 1 to 75"),
        ({"inversion": {"dialect": "pt"}}, r"inversion\.dialect is one of diffusers, kohya; found 'pt'"),
        ({"inversion": {"tokens": "x"}}, r"inversion: unknown key 'tokens'; did you mean 'token'"),
        ({"data": {"caption": "a horse"}}, r"None of the captions has the word '<red>'.*data\.caption"),
        ({"inversion": {"token": "a"}}, r"knows 'a' already"),
        ({"start": {}}, r"start\.model"),
        ({"prior": {"source": "x", "prompt": "y"}}, r"\[prior\] is for lora and unet, not for inversion"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    models: dict[str, Path], pictures: Path, tmp_path: Path, wrong: dict[str, dict[str, Any]], message: str
) -> None:
    given = sections(models["sd1"], pictures)
    for section, values in wrong.items():
        given[section] = {**given.get(section, {}), **values} if values else {}
    with pytest.raises(ConfigError, match=message):
        tiny.train("inversion", tmp_path / "run", given)
    assert not (tmp_path / "run").exists()
