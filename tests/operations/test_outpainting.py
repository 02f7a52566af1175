"""Pictures that grow: where their bytes stay, what is in the new part at first, and how the two fade."""

from pathlib import Path

import numpy as np
import pytest
from tiny_models import SIZE, scene

from sfumato.errors import RequestError
from sfumato.generation import generate
from sfumato.metadata import describe, save
from sfumato.model import Model
from sfumato.outpainting import extended
from sfumato.replay import replay
from sfumato.request import Outpaint, Request


def request(**changes: object) -> Request:
    fields = {"prompt": "a red house", "seed": 11, "steps": 3, "guidance": 5.0}
    return Request(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("masked_only", [False, True])
def test_the_picture_grows_and_keeps_its_bytes_outside_of_the_feather(tiny: Model, masked_only: bool) -> None:
    sides = {"left": 24, "bottom": 10, "feather": 8}
    size = {"width": SIZE, "height": SIZE} if masked_only else {}
    asked = request(outpaint=sides, masked_only=masked_only, **size)
    (grown,) = generate(tiny, asked, image=scene(80, 70), metadata=False)
    assert grown.size == (104, 80)
    kept = np.asarray(grown.crop((24 + 8, 0, 104, 70 - 8)))
    assert np.array_equal(kept, np.asarray(scene(80, 70).crop((8, 0, 80, 62))))
    assert not np.array_equal(np.asarray(grown.crop((24, 0, 32, 70))), np.asarray(scene(80, 70).crop((0, 0, 8, 70))))


def test_without_a_feather_the_whole_picture_keeps_its_bytes(tiny: Model) -> None:
    (grown,) = generate(tiny, request(outpaint={"top": 16, "feather": 0}), image=scene(), metadata=False)
    assert grown.crop((0, 16, SIZE, 16 + SIZE)).tobytes() == scene().tobytes()


def test_the_mask_fades_with_the_square_of_the_distance() -> None:
    _, mask = extended(scene(40, 20), Outpaint(left=5, top=3, feather=10))
    array = np.asarray(mask)
    assert (array[:3] == 255).all()
    assert (array[:, :5] == 255).all()
    for row in (0, 4, 12, 19):
        for column in (0, 3, 9, 25):
            distance = min(row, column) + 0.5  # of the pixel's centre to the nearer of the two sides
            expected = 255 * (max(10 - distance, 0) / 10) ** 2
            assert abs(array[3 + row, 5 + column] - expected) <= 0.5


def test_the_new_part_is_filled_as_asked() -> None:
    picture = scene(30, 20)
    old = np.asarray(picture)

    def filled(fill: str) -> np.ndarray:
        grown, _ = extended(picture, Outpaint(left=6, right=2, fill=fill))  # type: ignore[arg-type]
        assert np.array_equal(np.asarray(grown)[:, 6:36], old)
        return np.asarray(grown).astype(int)

    assert (filled("edge")[:, :6] == old[:, :1]).all()
    assert np.abs(filled("mean")[:, :6] - old.reshape(-1, 3).mean(0)).max() <= 0.5
    noise = filled("noise")
    assert np.array_equal(noise, filled("noise"))
    assert abs(noise[:, :6].mean() - 127.5) < 15  # 360 uniform bytes: one deviation is 3.9
    around = filled("around")
    assert around[:, :6].min() >= old.min()
    assert np.abs(around[:, 5] - old[:, 0]).mean() < np.abs(filled("mean")[:, 5] - old[:, 0]).mean()


def test_a_picture_of_a_batch_is_the_one_made_alone(tiny: Model) -> None:
    asked = request(outpaint={"right": 16, "fill": "noise"}, count=2, strict=True)
    together = generate(tiny, asked, image=scene(), metadata=False)
    alone = request(outpaint={"right": 16, "fill": "noise"}, seed=12)
    assert together[1].tobytes() == generate(tiny, alone, image=scene(), metadata=False)[0].tobytes()


def test_the_record_has_the_sides_and_replays(tiny: Model, tmp_path: Path) -> None:
    scene().save(tmp_path / "picture.png")
    asked = request(outpaint={"left": 16})
    assert Request.from_json(asked.to_json()) == asked
    (grown,) = generate(tiny, asked, image=tmp_path / "picture.png")
    save(grown, tmp_path / "grown.png")
    found = describe(tmp_path / "grown.png").request
    assert found is not None
    assert found.outpaint == Outpaint(left=16)
    assert (found.width, found.height) == (SIZE + 16, SIZE)
    assert replay(tmp_path / "grown.png", model=str(tiny.source)).outcome == "identical"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({}, "outpaint"),
        ({"left": -1}, "outpaint.left"),
        ({"top": 1.5}, "outpaint.top"),
        ({"left": None}, "outpaint.left"),
        ({"left": 8, "feather": 9999}, "outpaint.feather"),
        ({"left": 8, "fill": "grey"}, "outpaint.fill"),
        ({"west": 8}, "outpaint"),
    ],
)
def test_a_wrong_value_is_refused_by_name(value: object, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        request(outpaint=value)
    assert caught.value.field == field


def test_what_does_not_go_together_is_refused(tiny: Model) -> None:
    sides = {"left": 8}
    for changes, match in (
        ({"width": 100}, "72x64"),
        ({"resize_mode": "fill"}, "resize_mode"),
        ({"masked_content": "fill"}, "masked_content"),
    ):
        with pytest.raises(RequestError, match=match):
            generate(tiny, request(outpaint=sides, **changes), image=scene())
    with pytest.raises(RequestError, match="no image"):
        generate(tiny, request(outpaint=sides))
    with pytest.raises(RequestError, match="leave out the mask"):
        generate(tiny, request(outpaint=sides), image=scene(), mask=scene().convert("L"))
