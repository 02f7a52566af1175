"""Grey masks on whole pictures: bytes outside, limits, and that grey is drawn less than white."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_generation import array, one, request
from test_reference import largest
from tiny_models import SIZE, Pair, scene

from sfumato.engine import Engine
from sfumato.errors import RequestError
from sfumato.generation import generate
from sfumato.metadata import save
from sfumato.model import Model
from sfumato.replay import replay

FORMS: dict[str, dict[str, Any]] = {
    "differential": {"differential": True},
    "soft": {"soft_inpainting": True},
}
CHANGED: dict[str, dict[str, Any]] = {"changed": {"soft_inpainting": {"difference_threshold": 0.5}}}
ALL = FORMS | CHANGED


def ramp() -> Image.Image:
    """Black on the left quarter, white on the right one, grey between."""
    row = np.clip((np.arange(SIZE) - SIZE // 4) / (SIZE // 2), 0, 1)
    return Image.fromarray(np.broadcast_to((row * 255).astype(np.uint8), (SIZE, SIZE)).copy())


def halves() -> Image.Image:
    """Whole latent cells of black and of white."""
    mask = Image.new("L", (SIZE, SIZE), 0)
    mask.paste(255, (SIZE // 2, 0, SIZE, SIZE))
    return mask


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("form", FORMS)
def test_a_mask_of_black_and_white_cells_is_plain_inpainting(form: str, strength: float, tiny: Model) -> None:
    told = {"image": scene(), "mask": halves(), "strength": strength, "steps": 6}
    assert one(tiny, **told, **FORMS[form]).tobytes() == one(tiny, **told).tobytes()


@pytest.mark.parametrize("form", FORMS)
def test_a_white_mask_is_img2img_and_a_black_one_the_picture(form: str, tiny: Model) -> None:
    white, black = Image.new("L", (SIZE, SIZE), 255), Image.new("L", (SIZE, SIZE), 0)
    plain = one(tiny, image=scene(), strength=0.5)
    assert one(tiny, image=scene(), mask=white, strength=0.5, **FORMS[form]).tobytes() == plain.tobytes()
    assert one(tiny, image=scene(), mask=black, **FORMS[form]).tobytes() == scene().tobytes()


@pytest.mark.parametrize("blur", [None, 4.0])
@pytest.mark.parametrize("form", ALL)
def test_what_is_black_keeps_its_bytes_over_ten_edits(form: str, blur: float | None, tiny: Model) -> None:
    picture, mask = scene(), ramp()
    kept = np.asarray(mask) == 0
    for edit in range(10):
        picture = one(tiny, image=picture, mask=mask, mask_blur=blur, seed=edit, steps=2, **ALL[form])
        assert np.array_equal(array(picture)[kept], array(scene())[kept])
    assert not np.array_equal(array(picture)[~kept], array(scene())[~kept])


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
@pytest.mark.parametrize(("grey", "strength"), [(128, 0.6), (158, 0.7), (210, 0.9)])
def test_a_mask_of_one_grey_is_img2img_of_that_strength(grey: int, strength: float, sampler: str, tiny: Model) -> None:
    """The cells are let go at the level at which the shorter run begins, with the same noise.

    The whole steps above it: a cell goes with the network from the last level at which it is put back. A second-order
    sampler already asks for that level in the step before.
    """
    mask = Image.new("L", (SIZE, SIZE), grey)
    told = {"image": scene(), "steps": 10, "sampler": sampler}
    found = one(tiny, mask=mask, strength=1.0, differential=True, **told)
    assert largest(found, one(tiny, strength=strength, **told)) <= 1
    assert largest(found, one(tiny, strength=1.0, **told)) > 3


@pytest.mark.parametrize("form", ALL)
def test_it_works_with_masked_only_batches_guides_and_second_order(form: str, tiny: Model) -> None:
    told = {"image": scene(), "mask": ramp(), "sampler": "heun", "freeu": True, "apg": True, **ALL[form]}
    pictures = {name: told.pop(name) for name in ("image", "mask")}
    together = generate(tiny, request(count=2, batch=2, **told), **pictures, metadata=False)  # type: ignore[arg-type]
    for index in range(2):
        assert largest(together[index], one(tiny, seed=11 + index, **told, **pictures)) <= 2
    kept = np.asarray(ramp()) == 0
    found = one(tiny, masked_only=True, **told, **pictures)
    assert np.array_equal(array(found)[kept], array(scene())[kept])


@pytest.mark.parametrize("form", ALL)
def test_a_picture_is_replayed_identically(form: str, pair: Callable[[str], Pair], tmp_path: Path) -> None:
    model = pair("sd1").ours
    told = request(model=str(model.source), mask_blur=2.0, **ALL[form])
    (picture,) = generate(model, told, image=scene(), mask=ramp())
    for name, each in {"picture": picture, "start": scene(), "mask": ramp()}.items():
        save(each, tmp_path / f"{name}.png")
    assert replay(tmp_path / "picture.png", engine=Engine("cpu")).outcome == "identical"
    parameters = str(picture.info["parameters"])
    if form != "differential":
        assert "Soft inpainting enabled: True, Soft inpainting schedule bias: 1, " in parameters
        assert ("Soft inpainting difference threshold: 0.5" in parameters) == (form == "changed")


@pytest.mark.parametrize("form", FORMS)
def test_it_is_refused_without_a_mask_and_by_a_network_that_sees_the_mask(
    form: str, pair: Callable[[str], Pair], tiny: Model
) -> None:
    field = next(iter(FORMS[form]))
    with pytest.raises(RequestError) as caught:
        one(tiny, image=scene(), **FORMS[form])
    assert caught.value.field == field
    with pytest.raises(RequestError, match="sees the mask in black and white") as caught:
        one(pair("inpaint").ours, image=scene(), mask=ramp(), **FORMS[form])
    assert caught.value.field == field


def test_two_meanings_of_grey_are_refused() -> None:
    with pytest.raises(RequestError, match="differential is given with soft_inpainting"):
        request(differential=True, soft_inpainting=True)


def test_what_changed_is_taken_and_what_did_not_is_the_start_picture(tiny: Model) -> None:
    told = {"image": scene(), "mask": ramp(), "steps": 4, "strength": 1.0}
    by_mask = array(one(tiny, **told, soft_inpainting=True))
    numbers: dict[str, Any] = {"difference_threshold": 0.0}
    every = array(one(tiny, **told, soft_inpainting=numbers))  # nothing stays as it is to the last bit
    light = np.asarray(ramp()) > 255 / 3
    assert np.array_equal(every[light], by_mask[light])  # from there on the mask takes all as well

    def away(threshold: float, strength: float) -> float:
        numbers = {"difference_threshold": threshold, "difference_contrast": 8.0}
        found = array(one(tiny, **told | {"strength": strength}, soft_inpainting=numbers))
        return float(np.abs(found.astype(int) - array(scene()).astype(int)).mean())

    assert away(2.0, 1.0) > away(8.0, 1.0)
    assert away(0.1, 0.25) > 1 and away(8.0, 0.25) < 0.1  # little noise changes little


def test_with_its_whole_influence_the_mask_says_what_is_taken(tiny: Model) -> None:
    """Far from where halves meet; there the cells around count, and the blur."""
    numbers = {"difference_threshold": 0.5, "mask_influence": 1.0}
    told = {"image": scene(), "mask": halves(), "steps": 4}
    found, plain = one(tiny, **told, soft_inpainting=numbers), one(tiny, **told)
    edge = SIZE // 2 + 5 * 8
    assert np.array_equal(array(found)[:, edge:], array(plain)[:, edge:])
    assert np.array_equal(array(found)[:, : SIZE // 2], array(scene())[:, : SIZE // 2])
