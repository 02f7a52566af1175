"""A request with new words: what it draws, what its pictures say, and that the model is the same afterwards."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_models import SIZE

from sfumato.engine import Engine
from sfumato.errors import ModelNotFoundError, RequestError
from sfumato.events import Finished
from sfumato.generation import generate
from sfumato.metadata import describe, save
from sfumato.model import Model
from sfumato.replay import replay
from sfumato.request import Embedding, Request
from sfumato.weights.embeddings import WordVectors, save_embedding


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine("cpu")


def word_file(path: Path, seed: int = 0) -> str:
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(seed))
    return str(save_embedding(path, WordVectors("<toy>", (vectors,)), overwrite=True))


def request(model: Model, *embeddings: object, prompt: str = "a <toy>") -> Request:
    given = {"prompt": prompt, "seed": 3, "steps": 2, "width": SIZE, "height": SIZE, "model": str(model.source)}
    return Request(embeddings=embeddings, **given)  # type: ignore[arg-type]


def drawn(engine: Engine, asked: Request) -> Image.Image:
    (event,) = [event for event in engine.run(asked) if isinstance(event, Finished)]
    return event.picture


def test_a_new_word_changes_what_is_drawn_where_it_stands(engine: Engine, tiny: Model, tmp_path: Path) -> None:
    path = word_file(tmp_path / "toy.safetensors")
    plain = drawn(engine, request(tiny)).tobytes()
    known = drawn(engine, request(tiny, path)).tobytes()
    assert known != plain
    assert drawn(engine, request(tiny, (path, "<other>"), prompt="a <other>")).tobytes() == known
    assert (
        drawn(engine, request(tiny, path, prompt="a cat")).tobytes()
        == drawn(engine, request(tiny, prompt="a cat")).tobytes()
    )
    word_file(tmp_path / "toy.safetensors", seed=5)
    assert drawn(engine, request(tiny, path)).tobytes() not in (plain, known)


def test_a_picture_names_its_words_and_is_replayed(engine: Engine, tiny: Model, tmp_path: Path) -> None:
    path = word_file(tmp_path / "toy.safetensors")
    save(drawn(engine, request(tiny, (path, "<toy>"))), tmp_path / "a.png")
    found = describe(tmp_path / "a.png")
    assert found.request is not None
    assert found.request.embeddings == (Embedding(path, "<toy>"),)
    assert found.settings["embeddings"] == f"{path}:<toy>"
    assert replay(tmp_path / "a.png", engine=engine, verify=True).outcome == "identical"
    word_file(tmp_path / "toy.safetensors", seed=5)
    assert replay(tmp_path / "a.png", engine=engine, verify=True).outcome == "missing weight"
    Path(path).unlink()
    assert replay(tmp_path / "a.png", engine=engine, verify=True).outcome == "missing weight"


def test_a_model_without_the_word_refuses_the_request(engine: Engine, tiny: Model, tmp_path: Path) -> None:
    path = word_file(tmp_path / "toy.safetensors")
    with pytest.raises(RequestError, match=r"embeddings is .* but the model has none"):
        generate(tiny, request(tiny, path))
    with pytest.raises(ModelNotFoundError, match=r"the embedding 'nowhere\.safetensors' is not there"):
        drawn(engine, request(tiny, "nowhere.safetensors"))


@pytest.mark.parametrize("value", [3, ("a", "two words"), ("a", "b", "c"), {"nme": "a"}, ("a", None), ("",)])
def test_a_wrong_embedding_is_refused_by_name(value: object) -> None:
    with pytest.raises(RequestError, match="embeddings") as caught:
        Request(embeddings=[value])  # type: ignore[list-item]
    assert caught.value.field == "embeddings"


def test_embeddings_are_the_same_through_json() -> None:
    asked = Request(embeddings=["a", ("b.safetensors", "<b>")])  # type: ignore[list-item]
    assert Request.from_json(asked.to_json()) == asked
    assert "embeddings" not in Request().to_dict()
