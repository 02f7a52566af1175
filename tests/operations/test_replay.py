"""Pictures made again from their metadata, and the engine that does it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_models import SIZE, Pair, scene

from sfumato.devices import choose_device, choose_dtype
from sfumato.engine import Engine
from sfumato.errors import PictureError, RequestError
from sfumato.events import Finished, Loading
from sfumato.metadata import CHUNK, describe, save, stamp
from sfumato.replay import replay
from sfumato.request import Request


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine("cpu", keep=2)


def made(engine: Engine, pair: Pair, path: Path, **changes: object) -> list[Path]:
    fields = {"prompt": "a cat", "seed": 3, "steps": 2, "model": str(pair.ours.source), "width": SIZE, "height": SIZE}
    given = {name: changes.pop(name) for name in ("image", "mask") if isinstance(changes.get(name), Image.Image)}
    request = Request(**{**fields, **changes})  # type: ignore[arg-type]
    finished = [event for event in engine.run(request, **given) if isinstance(event, Finished)]  # type: ignore[arg-type]
    return [save(event.picture, path / f"{event.index}{path.suffix or '.png'}") for event in finished]


@pytest.mark.parametrize(
    "changes", [{}, {"sampler": "dpmpp_sde", "spacing": "karras"}, {"noise": "philox", "strict": True}]
)
def test_a_picture_replays_to_the_same_bytes(
    engine: Engine, pair: Callable[[str], Pair], tmp_path: Path, changes: dict[str, object]
) -> None:
    (path,) = made(engine, pair("sd1"), tmp_path, **changes)
    verdict = replay(path, engine=engine)
    assert verdict.outcome == "identical"
    assert verdict.picture is not None
    assert verdict.picture.tobytes() == Image.open(path).tobytes()
    assert verdict.changes == ()


def test_a_picture_of_a_batch_replays_in_its_batch(engine: Engine, pair: Callable[[str], Pair], tmp_path: Path) -> None:
    paths = made(engine, pair("sd1"), tmp_path, prompt=["a cat", "a dog"], count=2, batch=3)
    assert [replay(path, engine=engine).outcome for path in paths] == ["identical"] * 4


def test_the_resolved_request_comes_back_out_of_the_picture(
    engine: Engine, pair: Callable[[str], Pair], tmp_path: Path
) -> None:
    request = Request(prompt="a cat", seed=1, steps=2, width=SIZE, height=SIZE, model=str(pair("sd1").ours.source))
    (event,) = [event for event in engine.run(request) if isinstance(event, Finished)]
    assert describe(save(event.picture, tmp_path / "a.png")).request == event.request


def test_a_jpeg_is_compared_by_what_it_was_made_from(
    engine: Engine, pair: Callable[[str], Pair], tmp_path: Path
) -> None:
    (path,) = made(engine, pair("sd1"), tmp_path)
    with Image.open(path) as opened:
        opened.load()
        jpeg = save(opened, tmp_path / "a.jpg")
    assert replay(jpeg, engine=engine).outcome == "identical"


def test_an_edit_finds_its_start_picture_beside_it(engine: Engine, pair: Callable[[str], Pair], tmp_path: Path) -> None:
    mask = Image.new("L", (SIZE, SIZE), 0)
    mask.paste(255, (0, 0, 32, 32))
    (path,) = made(engine, pair("sd1"), tmp_path, image=scene(), mask=mask, mask_blur=2.0)
    assert replay(path, engine=engine).outcome == "missing picture"
    scene().save(tmp_path / "start.png")
    mask.save(tmp_path / "mask.png")
    assert replay(path, engine=engine).outcome == "identical"
    assert replay(path, engine=engine, image=scene(), mask=mask).outcome == "identical"
    other = replay(path, engine=engine, image=scene().rotate(180), mask=mask)
    assert (other.outcome, other.picture) == ("missing picture", None)


def test_bytes_are_replayed_as_their_file_is_and_nothing_is_looked_for(
    engine: Engine, pair: Callable[[str], Pair], tmp_path: Path
) -> None:
    (path,) = made(engine, pair("sd1"), tmp_path, image=scene())
    scene().save(tmp_path / "start.png")
    assert replay(path, engine=engine).outcome == "identical"
    content = path.read_bytes()
    alone = replay(content, engine=engine)
    assert alone.outcome == "missing picture" and alone.message.endswith("is not there any more")
    assert replay(content, engine=engine, image=scene()).outcome == "identical"
    with pytest.raises(PictureError, match=r"^the picture is not a PNG, JPEG or WebP picture"):
        replay(b"none", engine=engine)


def test_where_a_start_picture_lay_is_not_told(engine: Engine, pair: Callable[[str], Pair], tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    scene().save(tmp_path / "secret" / "start.png")
    (path,) = made(engine, pair("sd1"), tmp_path, image=str(tmp_path / "secret" / "start.png"), strength=0.5)
    assert b"secret" not in path.read_bytes()


def changed(path: Path, change: Callable[[dict], object]) -> Path:
    """The same picture with another record."""
    with Image.open(path) as opened:
        opened.load()
        record = json.loads(opened.info[CHUNK])
        change(record)
        plain = opened.copy()
    stamp(plain, record)
    return save(plain, path.with_name("changed.png"))


def test_what_differs_is_named(engine: Engine, pair: Callable[[str], Pair], tmp_path: Path) -> None:
    (path,) = made(engine, pair("sd1"), tmp_path)
    weights = replay(changed(path, lambda r: r["model"]["hashes"].update(unet="0" * 64)), engine=engine)
    assert (weights.outcome, weights.picture) == ("missing weight", None)
    assert "unet was 000000000000" in weights.message
    (tmp_path / "changed.png").unlink()
    gone = replay(changed(path, lambda r: r["request"].update(model="no/such-model")), engine=engine)
    assert gone.outcome == "missing weight"
    (tmp_path / "changed.png").unlink()
    other = replay(
        changed(path, lambda r: (r["request"].update(seed=4), r["environment"].update(torch="1.0"))), engine=engine
    )
    assert other.outcome == "environment changed"
    assert other.largest is not None
    assert other.largest > 0
    assert any(change.startswith("torch was 1.0, is ") for change in other.changes)
    (tmp_path / "changed.png").unlink()
    same_place = replay(changed(path, lambda r: r["request"].update(seed=4)), engine=engine)
    assert same_place.outcome == "differs"
    (tmp_path / "changed.png").unlink()
    newer = changed(path, lambda r: r.update(format=2))
    with pytest.raises(PictureError, match="format 2"):
        replay(newer, engine=engine)


def test_a_picture_that_was_edited_since_is_told(engine: Engine, pair: Callable[[str], Pair], tmp_path: Path) -> None:
    (path,) = made(engine, pair("sd1"), tmp_path)
    with Image.open(path) as opened:
        opened.load()
        edited = opened.copy()
    edited.putpixel((0, 0), (1, 2, 3))
    verdict = replay(save(edited, tmp_path / "edited.png"), engine=engine)
    assert verdict.outcome == "identical"  # what was recorded came out again
    assert "edited" in verdict.message


def test_only_pictures_of_sfumato_are_replayed(tmp_path: Path) -> None:
    scene().save(tmp_path / "a.png")
    with pytest.raises(PictureError, match="not made by sfumato"):
        replay(tmp_path / "a.png")


def test_the_engine_keeps_the_models_that_it_used_last(pair: Callable[[str], Pair]) -> None:
    engine = Engine("cpu")
    first, second = str(pair("sd1").ours.source), str(pair("sd2").ours.source)
    request = Request(prompt="a cat", steps=1, width=16, height=16, model=first)
    assert next(type(event) for event in engine.run(request)) is Loading
    list(engine.run(request))
    assert not any(isinstance(event, Loading) for event in engine.run(request))
    assert engine.model(first) is engine.model(first)
    engine.model(second)
    assert not engine.is_loaded(first)
    assert engine.is_loaded(second)
    engine.forget()
    assert not engine.is_loaded(second)


def test_devices_and_precisions_are_named_or_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    for name in ("tpu", "cuda:x", "cpu:1", "cuda:99"):
        with pytest.raises(RequestError) as caught:
            choose_device(name)
        assert caught.value.field == "device"
    assert choose_dtype(None, torch.device("cpu")) is torch.float32
    assert choose_dtype("bf16", torch.device("cpu")) is torch.bfloat16
    with pytest.raises(RequestError) as caught:
        choose_dtype("float8", torch.device("cpu"))
    assert caught.value.field == "dtype"
