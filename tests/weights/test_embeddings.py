"""Embeddings of new words: the shapes of their files, and that a prompt hears what it hears in diffusers."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sfumato.errors import ConfigError, ModelFileError, ModelNotFoundError, OutputError, WeightsError
from sfumato.request import Embedding, checked_embeddings
from sfumato.text.chunks import chunk
from sfumato.text.prompt import parse
from sfumato.text.tokenizer import Tokenizer
from sfumato.weights.embeddings import WordVectors, load_embedding, save_embedding, with_embeddings
from sfumato.weights.load import load
from sfumato.weights.save import save_folder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations among the reference implementations
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

Pipelines = Callable[[str], tuple[Any, Path]]
PROMPT = "a photograph of <toy> riding a horse"


def vectors(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def theirs(kind: str, pipelines: Pipelines) -> Any:
    made, _ = pipelines(kind)
    parts = {name: copy.deepcopy(part) for name, part in made.components.items()}
    if kind == "sd1":
        return StableDiffusionPipeline(**parts, requires_safety_checker=False)
    return StableDiffusionXLPipeline(**parts, add_watermarker=False)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("count", [1, 3])
def test_a_prompt_hears_a_new_word_as_in_diffusers(pipelines: Pipelines, tmp_path: Path, count: int) -> None:
    path = save_embedding(tmp_path / "a.safetensors", WordVectors("<toy>", (vectors(count, 32),)))
    pipeline = theirs("sd1", pipelines)
    model = load(pipelines("sd1")[1])
    before = model.text.encode(PROMPT).context
    pipeline.load_textual_inversion(str(path))
    expected, _ = pipeline.encode_prompt(PROMPT, "cpu", 1, False)
    found = load(pipelines("sd1")[1], embeddings=[path]).text.encode(PROMPT, dialect="plain").context
    assert difference(found, expected) < 1e-5
    assert difference(before, expected) > 1e-2


@pytest.mark.parametrize("count", [1, 2])
def test_sdxl_hears_a_new_word_in_both_encoders_as_in_diffusers(
    pipelines: Pipelines, tmp_path: Path, count: int
) -> None:
    pair = (vectors(count, 32), vectors(count, 48, 1))
    path = save_embedding(tmp_path / "a.safetensors", WordVectors("<toy>", pair))
    pipeline = theirs("sdxl", pipelines)
    stored = load_file(path)
    for name, tokenizer, encoder in (
        ("clip_l", "tokenizer", "text_encoder"),
        ("clip_g", "tokenizer_2", "text_encoder_2"),
    ):
        pipeline.load_textual_inversion(
            stored[name],
            token="<toy>",
            text_encoder=getattr(pipeline, encoder),
            tokenizer=getattr(pipeline, tokenizer),
        )
    expected, _, pooled, _ = pipeline.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=False)
    model = load(pipelines("sdxl")[1], embeddings=[(path, "<toy>")])
    found = model.text.encode(PROMPT, dialect="plain")
    assert difference(found.context, expected) < 1e-5
    assert found.pooled is not None
    assert difference(found.pooled, pooled) < 1e-5


@pytest.mark.parametrize(
    ("tensors", "word", "count"),
    [
        ({"<cat>": (2, 32)}, "<cat>", 1),
        ({"emb_params": (2, 32)}, "file", 1),
        ({"emp_params": (2, 32)}, "file", 1),
        ({"<cat>": (32,)}, "<cat>", 1),
        ({"clip_l": (2, 32), "clip_g": (2, 48)}, "file", 2),
    ],
)
def test_the_shapes_that_people_share_are_read(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], word: str, count: int
) -> None:
    path = tmp_path / "file.safetensors"
    save_file({name: torch.randn(shape) for name, shape in tensors.items()}, path)
    found = load_embedding(path)
    assert (found.word, len(found.vectors)) == (word, count)
    assert all(tensor.ndim == 2 for tensor in found.vectors)


def test_what_is_written_has_the_names_that_programs_look_for(tmp_path: Path) -> None:
    one, pair = (vectors(2, 32),), (vectors(2, 32), vectors(2, 48))
    for dialect, tensors, names in (
        ("diffusers", one, ["<cat>"]),
        ("kohya", one, ["emb_params"]),
        ("diffusers", pair, ["clip_g", "clip_l"]),
        ("kohya", pair, ["clip_g", "clip_l"]),
    ):
        path = tmp_path / f"{dialect}-{len(tensors)}.safetensors"
        save_embedding(path, WordVectors("<cat>", tensors), dialect=dialect)
        assert sorted(load_file(path)) == names
        assert all(torch.equal(a, b) for a, b in zip(load_embedding(path).vectors, tensors, strict=True))
        with pytest.raises(OutputError, match="exists"):
            save_embedding(path, WordVectors("<cat>", tensors), dialect=dialect)


def test_a_word_of_several_vectors_counts_as_many_tokens_and_is_not_cut(pipelines: Pipelines, tmp_path: Path) -> None:
    path = save_embedding(tmp_path / "a.safetensors", WordVectors("<toy>", (vectors(5, 32),)))
    base = load(pipelines("sd1")[1])
    model = with_embeddings(base, checked_embeddings([path]))
    tokenizer, first = model.text.tokenizers[0], len(base.text.tokenizers[0])
    assert tokenizer.encode("<toy>") == [first, first + 1, first + 2, first + 3, first + 4]
    assert tokenizer.encode("<TOY>") == tokenizer.encode("<toy>")
    words = "a " * 72
    [one, two] = chunk(parse(words + "<toy>"), tokenizer).chunks
    assert (one.length, two.length) == (72, 5)
    [whole] = chunk(parse("a " * 70 + "<toy>"), tokenizer).chunks
    assert whole.length == 75
    assert model.text.encode("(<toy>:1.2) on a horse").context.shape == (1, 77, 32)


def test_the_model_keeps_all_else_and_the_base_all(pipelines: Pipelines, tmp_path: Path) -> None:
    base = load(pipelines("sd1")[1])
    before = base.text.encoders[0].text_model.embeddings.token_embedding.weight.clone()
    path = save_embedding(tmp_path / "a.safetensors", WordVectors("<toy>", (vectors(2, 32),)))
    model = with_embeddings(base, checked_embeddings([path, (path, "<second>")]))
    table = model.text.encoders[0].text_model.embeddings.token_embedding.weight
    assert torch.equal(table[: len(before)], before)
    assert torch.equal(table[len(before) :], torch.cat([vectors(2, 32)] * 2))
    assert torch.equal(base.text.encoders[0].text_model.embeddings.token_embedding.weight, before)
    plain = "a horse"
    assert torch.equal(model.text.encode(plain).context, base.text.encode(plain).context)
    assert {"embedding <toy>", "embedding <second>"} <= set(model.files)
    assert model.embeddings == (Embedding(str(path)), Embedding(str(path), "<second>"))


def test_a_model_with_a_new_word_is_saved_with_it(pipelines: Pipelines, tmp_path: Path) -> None:
    path = save_embedding(tmp_path / "a.safetensors", WordVectors("<toy>", (vectors(3, 32),)))
    model = load(pipelines("sd1")[1], embeddings=[path])
    again = load(save_folder(model, tmp_path / "model"))
    assert again.text.tokenizers[0].encode(PROMPT) == model.text.tokenizers[0].encode(PROMPT)
    assert torch.equal(again.text.encode(PROMPT).context, model.text.encode(PROMPT).context)


@pytest.mark.parametrize("word", ["<toy>", "Toy-Cat", "badhand_v4", "ünï", "a.b"])
def test_ids_are_those_of_transformers(pipelines: Pipelines, word: str) -> None:
    made, folder = pipelines("sd1")
    reference = copy.deepcopy(made.tokenizer)
    reference.add_tokens([word, f"{word}_1"])
    ours = Tokenizer.from_folder(folder / "tokenizer").with_word(word, 2)
    for text in (f"a {word} horse", f"{word}", f"x{word}y {word}, {word.upper()}!", f"({word}) {word}_1"):
        said = text.replace(word, f"{word} {word}_1") if f"{word}_1" not in text else text
        ids = reference(said, add_special_tokens=False).input_ids
        if f"{word}_1" not in text and word.upper() == word.lower():
            assert ours.encode(text) == ids
        elif f"{word}_1" not in text:
            assert (
                ours.encode(text.replace(word.upper(), ""))
                == reference(said.replace(word.upper(), ""), add_special_tokens=False).input_ids
            )


def test_what_does_not_fit_is_said(pipelines: Pipelines, tmp_path: Path) -> None:
    base = load(pipelines("sd1")[1])
    wide = save_embedding(tmp_path / "wide.safetensors", WordVectors("<w>", (vectors(1, 768),)))
    with pytest.raises(WeightsError, match=r"features, the model's text encoders \[32\]. It looks made for SD 1.x"):
        with_embeddings(base, checked_embeddings([wide]))
    pair = save_embedding(tmp_path / "pair.safetensors", WordVectors("<w>", (vectors(1, 32), vectors(1, 48))))
    with pytest.raises(WeightsError, match="It looks made for SDXL"):
        with_embeddings(base, checked_embeddings([pair]))
    good = save_embedding(tmp_path / "good.safetensors", WordVectors("<w>", (vectors(1, 32),)))
    with pytest.raises(ConfigError, match="knows '<w>' already"):
        with_embeddings(base, checked_embeddings([good, good]))
    with pytest.raises(ConfigError, match="knows 'a' already"):
        with_embeddings(base, checked_embeddings([(good, "a")]))
    with pytest.raises(ModelNotFoundError, match="the embedding"):
        with_embeddings(base, checked_embeddings([tmp_path / "none.safetensors"]))
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "two.safetensors")
    save_file({"a": torch.full((1, 32), float("nan"))}, tmp_path / "nan.safetensors")
    (tmp_path / "x.pt").write_bytes(b"\x80\x02}q\x00.")
    for name in ("two.safetensors", "nan.safetensors", "x.pt"):
        with pytest.raises(ModelFileError):
            load_embedding(tmp_path / name)
