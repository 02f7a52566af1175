"""Variations and other sizes of a seed's noise, against closed forms of what A1111 does."""

import numpy as np
import pytest
import torch
from tiny_models import SIZE

from sfumato.diffusion.noise import noise_source, start_noise
from sfumato.diffusion.philox import Philox
from sfumato.diffusion.variation import placed, slerp
from sfumato.errors import RequestError
from sfumato.generation import batches, generate
from sfumato.job import prepare
from sfumato.metadata import parse_infotext
from sfumato.model import Model
from sfumato.request import Request, Variation
from sfumato.trajectory import noises

CELLS = SIZE // 8


def request(**changes: object) -> Request:
    fields = {"prompt": "a red house", "seed": 5, "steps": 2, "width": SIZE, "height": SIZE}
    return Request(**{**fields, **changes})  # type: ignore[arg-type]


def start(model: Model, **changes: object) -> torch.Tensor:
    job = prepare(model, request(**changes))
    return torch.cat([noises(job, batch).start() for batch in batches(job)])


def arc(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Shoemake's formula for vectors, one after the other, in float64."""
    cosine = first @ second / (np.linalg.norm(first) * np.linalg.norm(second))
    angle = np.arccos(cosine)
    return (np.sin((1 - share) * angle) * first + np.sin(share * angle) * second) / np.sin(angle)


def test_a_variation_is_the_arc_between_the_two_noises_columns(tiny: Model) -> None:
    shape = (4, CELLS, CELLS)
    first, second = start_noise(5, shape).double().numpy(), start_noise(77, shape).double().numpy()
    found = start(tiny, variation=(0.3, 77))[0].numpy()
    for channel in range(4):
        for column in range(CELLS):
            expected = arc(first[channel, :, column], second[channel, :, column], 0.3)
            assert np.allclose(found[channel, :, column], expected, atol=1e-5)


def test_a_variation_of_0_is_the_request_and_of_1_the_other_seed(tiny: Model) -> None:
    plain = generate(tiny, request(), metadata=False)[0]
    assert generate(tiny, request(variation=(0.0, 77)), metadata=False)[0].tobytes() == plain.tobytes()
    assert torch.allclose(start(tiny, variation=(1.0, 77))[0], start_noise(77, (4, CELLS, CELLS)), atol=1e-5)


def test_a_variation_of_the_same_seed_changes_nothing_but_rounding() -> None:
    noise = start_noise(5, (4, CELLS, CELLS))
    assert torch.allclose(slerp(noise, noise, 0.4), noise, atol=1e-5)


def test_all_variations_share_the_seed_and_take_the_next_other_one_each(tiny: Model) -> None:
    several = start(tiny, variation=(0.3, 77), count=3)
    for index, noise in enumerate(several):
        assert torch.equal(noise, start(tiny, variation=(0.3, 77 + index))[0])
    pictures = generate(tiny, request(variation=(0.3, 77), count=2))
    told = [parse_infotext(picture.info["parameters"]).parameters for picture in pictures]
    assert [each["Seed"] for each in told] == ["5", "5"]
    assert [each["Variation seed"] for each in told] == ["77", "78"]
    assert [each["Variation seed strength"] for each in told] == ["0.3", "0.3"]


def test_a_variation_keeps_the_variance_of_noise() -> None:
    mixed = slerp(start_noise(1, (4, 64, 64)), start_noise(2, (4, 64, 64)), 0.5)
    assert abs(float(mixed.var()) - 1) < 0.02  # a straight line would have 0.5; 128^2 numbers: 0.008 is one deviation


def test_the_noise_of_a_smaller_size_lies_in_the_middle_of_the_larger(tiny: Model) -> None:
    found = start(tiny, width=96, height=64, seed_size=(64, 32))[0]  # cells: 12 x 8 with 8 x 4 in the middle
    own, small = start_noise(5, (4, 8, 12)), start_noise(5, (4, 4, 8))
    assert torch.equal(found[:, 2:6, 2:10], small)
    found[:, 2:6, 2:10] = own[:, 2:6, 2:10]
    assert torch.equal(found, own)


def test_the_middle_of_the_noise_of_a_larger_size_is_taken(tiny: Model) -> None:
    found = start(tiny, seed_size=(96, 128))[0]  # 12 columns, 16 rows
    assert torch.equal(found, start_noise(5, (4, 16, 12))[:, 4:12, 2:10])


def test_odd_differences_are_rounded_as_a1111_rounds_them() -> None:
    inner, outer = torch.ones(1, 3, 8), torch.zeros(1, 6, 5)
    result = placed(inner, outer)
    # rows: (6 - 3) // 2 = 1; columns: (5 - 8) // 2 = -2, so 8 - 4 = 4 of them are placed from the left
    assert torch.equal(result[0, 1:4, :4], torch.ones(3, 4))
    assert result.sum() == 12


def test_the_own_size_of_a_picture_as_seed_size_changes_nothing(tiny: Model) -> None:
    assert torch.equal(start(tiny, seed_size=(SIZE, SIZE)), start(tiny))


@pytest.mark.parametrize("mode", ["sequential", "philox"])
def test_the_other_draws_of_a_stream_stay_in_their_places(tiny: Model, mode: str) -> None:
    job = prepare(tiny, request(noise=mode, variation=(0.5, 9), seed_size=(96, 96)))
    varied = noises(job, next(batches(job)))
    plain = noise_source(mode, [5], (4, CELLS, CELLS))  # type: ignore[arg-type]
    varied.start(), plain.start()
    assert torch.equal(varied.step(0), plain.step(0))


def test_philox_variations_come_from_philox(tiny: Model) -> None:
    found = start(tiny, noise="philox", variation=(1.0, 9))[0]
    assert torch.allclose(found, torch.from_numpy(Philox(9).normal((4, CELLS, CELLS))), atol=1e-5)


def test_a_variation_without_a_seed_gets_one_that_the_record_tells(tiny: Model) -> None:
    resolved = prepare(tiny, request(variation=0.2)).request
    assert resolved.variation is not None
    assert resolved.variation.seed is not None
    assert Request.from_json(resolved.to_json()) == resolved


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("variation", value) for value in (1.5, "a", (0.5, -1), (0.1, 2, 3), {"power": 1})],
        *[("seed_size", value) for value in (64, (64,), (64, 8), (64, None), "64")],
        *[("masked_content", value) for value in ("grey", 3)],
        *[("resize_mode", value) for value in ("squeeze",)],
        *[("padding", value) for value in (-1, 1.5)],
        *[(name, value) for name in ("masked_only", "mask_invert") for value in (1, None)],
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(RequestError, match=field) as caught:
        request(**{field: value})
    assert caught.value.field == field


def test_parts_stand_for_themselves_in_json() -> None:
    asked = request(variation=Variation(0.25, 7), seed_size=(512, 768), masked_only=True, padding=4)
    assert asked.to_dict()["variation"] == {"strength": 0.25, "seed": 7}
    assert Request.from_json(asked.to_json()) == asked
    assert not {"variation", "seed_size", "masked_only", "mask_invert"} & set(request().to_dict())
