"""Prompts for parts of a picture: places that add up, and pictures that follow them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from test_prompt_features import difference, drawn
from tiny_models import SIZE

from sfumato.engine import Engine
from sfumato.errors import RequestError
from sfumato.events import Finished
from sfumato.metadata import CHUNK, PARAMETERS, save
from sfumato.model import Model
from sfumato.operations import Canvas
from sfumato.places import places
from sfumato.replay import replay
from sfumato.request import Region, Request, parse_region


def test_places_add_up_to_one_everywhere() -> None:
    canvas = Canvas(60, 52, 8)
    mask = Image.new("L", (30, 30))
    ImageDraw.Draw(mask).ellipse((3, 3, 20, 26), fill=200)
    regions = [
        Region("a", (0.0, 0.0, 0.6, 1.0)),
        Region("b", (0.3, 0.1, 0.7, 0.5), weight=0.5),
        Region("c", mask="x"),
    ]
    found = places(regions, [None, None, mask], canvas)
    assert all(each.shape == (1, 1, *canvas.cells) for each in found)
    assert torch.allclose(torch.stack(found).sum(0), torch.ones(1, 1, *canvas.cells))
    assert all(float(each.min()) >= 0 for each in found)


def test_a_cell_that_is_partly_in_a_region_counts_in_part() -> None:
    base, left = places([Region("a", (0.0, 0.0, 12 / 64, 1.0))], [None], Canvas(64, 64, 8))
    assert left[0, 0, 0].tolist() == [1.0, 0.5, 0, 0, 0, 0, 0, 0]
    assert base[0, 0, 3].tolist() == [0.0, 0.5, 1, 1, 1, 1, 1, 1]


def test_a_region_of_the_whole_picture_is_its_prompt_alone(tiny: Model) -> None:
    (cat,), (dog,) = drawn(tiny, "a cat"), drawn(tiny, "a dog")
    whole = (Region("a cat", (0, 0, 1, 1)),)
    assert drawn(tiny, "a dog", regions=whole)[0].tobytes() == cat.tobytes()
    nothing = (Region("a cat", (0, 0, 0.5, 1), weight=0.0),)
    assert drawn(tiny, "a dog", regions=nothing)[0].tobytes() == dog.tobytes()
    same = (Region("a dog", (0, 0, 0.5, 1)),)
    assert difference(drawn(tiny, "a dog", regions=same)[0], dog) <= 1


@pytest.mark.parametrize("guidance", [1.0, 6.0])
def test_one_step_with_regions_is_each_prompts_own_step_in_its_place(tiny: Model, guidance: float) -> None:
    def latent(prompt: str, **changes: object) -> torch.Tensor:
        from test_prompt_features import estimates

        return estimates(tiny, prompt, "euler", guidance=guidance, **changes)[0]

    halves = latent("a cat", regions=(Region("a dog", (0.5, 0, 0.5, 1)),))
    expected = torch.cat([latent("a cat")[..., :4], latent("a dog")[..., 4:]], dim=-1)
    torch.testing.assert_close(halves, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def engine() -> Engine:
    return Engine("cpu")


def pictures(engine: Engine, request: Request) -> list[Image.Image]:
    return [event.picture for event in engine.run(request) if isinstance(event, Finished)]


def test_masks_are_recorded_by_their_pixels_and_found_beside_the_picture(
    engine: Engine, tiny: Model, tmp_path: Path
) -> None:
    mask = Image.fromarray((np.arange(SIZE * SIZE).reshape(SIZE, SIZE) % 256).astype(np.uint8))
    mask.save(tmp_path / "mask.png")
    regions = (Region("a dog", mask=str(tmp_path / "mask.png"), weight=0.8), Region("sky", (0, 0, 1, 0.25)))
    request = Request(prompt="a cat", regions=regions, seed=1, steps=2, width=SIZE, height=SIZE, model=str(tiny.source))
    (picture,) = pictures(engine, request)
    record = json.loads(picture.info[CHUNK])
    assert record["inputs"]["region 1 mask"] == record["request"]["regions"][0]["mask"]
    assert record["inputs"]["region 1 mask"].startswith("sha256:")
    assert record["request"]["regions"][1] == {"prompt": "sky", "area": [0, 0, 1, 0.25], "weight": 1.0}
    path = save(picture, tmp_path / "a.png")
    assert replay(path, engine=engine).outcome == "identical"
    (tmp_path / "mask.png").unlink()
    assert replay(path, engine=engine).outcome == "missing picture"


def test_what_was_drawn_is_recorded_and_replayed_without_the_files(
    engine: Engine, tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "wildcards").mkdir(parents=True)
    words = tmp_path / "home" / "wildcards" / "animal.txt"
    words.write_text("cat\ndog\nred bird\nfish AND grass\n")
    (tmp_path / "home" / "styles.csv").write_text("name,prompt,negative_prompt\nbright,bright,dark\n")
    request = Request(
        prompt="a __animal__ {1|2|3}", negative_prompt="{x|y}", styles=("bright",), seed=1, count=6, batch=3,
        steps=2, width=SIZE, height=SIZE, model=str(tiny.source),
    )  # fmt: skip
    found = pictures(engine, request)
    paths = [save(picture, tmp_path / f"{number}.png") for number, picture in enumerate(found)]
    texts = [picture.info[PARAMETERS].split("\nNegative prompt: ") for picture in found]
    assert len({text for text, _ in texts}) > 1
    assert all(text.startswith("a ") and text.endswith(", bright") and "__" not in text for text, _ in texts)
    record = json.loads(found[0].info[CHUNK])
    assert record["request"]["prompt"] == "a __animal__ {1|2|3}"
    words.unlink()
    (tmp_path / "home" / "styles.csv").unlink()
    assert [replay(path, engine=engine).outcome for path in paths] == ["identical"] * 6


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("left: a cat", Region("a cat", (0, 0, 0.5, 1))),
        ("top right@0.5: a cat: red", Region("a cat: red", (0.5, 0, 0.5, 0.5), weight=0.5)),
        ("0,.25,0.5,0.75: x", Region("x", (0, 0.25, 0.5, 0.75))),
        ("masks/a.png@0.7: x", Region("x", mask="masks/a.png", weight=0.7)),
    ],
)
def test_a_region_is_written_on_the_command_line(text: str, region: Region) -> None:
    assert parse_region(text) == region
    assert parse_region(str(region)) == region


@pytest.mark.parametrize(
    "region",
    [
        {"prompt": "a"},
        {"prompt": "a", "area": "somewhere"},
        {"prompt": "a", "area": [0, 0, 1]},
        {"prompt": "a", "area": [0.5, 0, 0.6, 1]},
        {"prompt": "a", "area": [0, 0, 0, 1]},
        {"prompt": "a", "area": [0, 0, 1, 1], "mask": "x.png"},
        {"prompt": "a", "area": [0, 0, 1, 1], "weight": 1.1},
        {"prompt": "a", "area": [0, 0, 1, 1], "strength": 1},
        {"prompt": 3, "area": [0, 0, 1, 1]},
        "left",
    ],
)
def test_a_region_that_cannot_be_is_told(region: object) -> None:
    with pytest.raises(RequestError, match="regions") as caught:
        Request(regions=[region])  # type: ignore[list-item]
    assert caught.value.field == "regions"


@pytest.mark.parametrize("text", ["left a cat", "left@x: a", "left@2: a", "0,0,2,1: a"])
def test_a_region_that_cannot_be_read_is_told(text: str) -> None:
    with pytest.raises(RequestError, match="region"):
        parse_region(text)
