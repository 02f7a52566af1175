"""A request with new words: what it draws, what its pictures say, and that the model is the same afterwards."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_models import SIZE

from sfumato.engine import Engine
from sfumato.errors import ModelNotFoundError, PromptError, RequestError
from sfumato.events import Finished
from sfumato.generation import generate
from sfumato.metadata import CHUNK, describe, save
from sfumato.model import Model
from sfumato.replay import replay
from sfumato.request import Embedding, Request
from sfumato.weights.embeddings import WordVectors, save_embedding
from sfumato.weights.locate import add_folder


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


def test_a_prompt_names_an_embedding_that_is_known(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    webui = tmp_path / "webui"
    (webui / "embeddings").mkdir(parents=True)
    (webui / "models" / "Stable-diffusion").mkdir(parents=True)
    width = tiny.text.encoders[0].config.hidden_size
    vectors = torch.randn(2, width, generator=torch.Generator().manual_seed(1))
    save_file({"emb_params": vectors}, webui / "embeddings" / "EasyToy.safetensors")
    save_file({"emb_params": torch.randn(2, width + 1)}, webui / "embeddings" / "cat.safetensors")  # another family's
    add_folder(webui)
    engine = Engine("cpu")

    def picture(prompt: str, **changes: object) -> Image.Image:
        request = Request(prompt=prompt, seed=1, steps=2, width=SIZE, height=SIZE, model=str(tiny.source), **changes)  # type: ignore[arg-type]
        (event,) = [event for event in engine.run(request) if isinstance(event, Finished)]
        return event.picture

    named = picture("a cat, (easytoy:1.2)")
    given = picture("a cat, (easytoy:1.2)", embeddings=[(str(webui / "embeddings" / "EasyToy.safetensors"), "EasyToy")])
    assert named.tobytes() == given.tobytes()
    assert json.loads(named.info[CHUNK])["request"]["embeddings"] == [{"name": "EasyToy", "word": "EasyToy"}]
    assert replay(save(named, tmp_path / "a.png"), engine=engine).outcome == "identical"
    assert named.tobytes() != picture("a cat, (easytoy:1.2)", dialect="plain").tobytes()
    comfy = picture("a cat, embedding:EasyToy", dialect="comfy")
    assert comfy.tobytes() == picture("a cat, easytoy").tobytes()
    weighted = picture("a cat, (embedding:EasyToy.safetensors:1.2)", dialect="comfy")
    assert weighted.tobytes() == picture("a cat, (embedding:easytoy:1.2)", dialect="comfy").tobytes()
    for word in ("mytoy", "embedding:mytoy"):
        own = picture(
            "a cat, embedding:mytoy",
            dialect="comfy",
            embeddings=[(str(webui / "embeddings" / "EasyToy.safetensors"), word)],
        )
        assert own.tobytes() == comfy.tobytes()
    assert replay(save(comfy, tmp_path / "b.png"), engine=engine).outcome == "identical"
    with pytest.raises(PromptError, match=r"no such embedding \(did you mean 'easytoy'\?\)"):
        picture("a cat, embedding:EasyTyo", dialect="comfy")
    again = {"scale": 2, "steps": 2, "strength": 0.5}
    second = picture("a cat", hires={**again, "prompt": "easytoy"})
    assert second.tobytes() != picture("a cat", hires={**again, "prompt": "easytoys"}).tobytes()
    assert "EasyToy" in second.info[CHUNK]
    assert "embeddings" not in json.loads(picture("a cat, easytoys").info[CHUNK])["request"]
