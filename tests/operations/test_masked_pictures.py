"""What inpainting and start pictures promise: bytes outside of a mask, what is under it, how pictures are fitted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tiny_models import SIZE, Pair, recorded, scene

from sfumato import operations as op
from sfumato.errors import RequestError
from sfumato.generation import batches, generate
from sfumato.images import fit_and_fill, stretch, to_pixels
from sfumato.job import prepare
from sfumato.masks import filled_from_around, inset
from sfumato.metadata import describe, parse_infotext, save
from sfumato.model import Model
from sfumato.replay import replay
from sfumato.request import Request
from sfumato.trajectory import begin, under_mask


def request(**changes: object) -> Request:
    fields = {"prompt": "a red house", "seed": 11, "steps": 4, "guidance": 5.0}
    return Request(**{**fields, **changes})  # type: ignore[arg-type]


def masked(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=255)
    return mask


@pytest.mark.parametrize("blur", [0.0, 3.0])
def test_masked_only_keeps_the_size_and_every_byte_outside_of_the_mask(tiny: Model, blur: float) -> None:
    picture, mask = scene(150, 110), masked(150, 110, (90, 30, 120, 50))
    asked = request(masked_only=True, padding=8, mask_blur=blur, width=SIZE, height=SIZE)
    with recorded(tiny.unet) as calls:
        (edited,) = generate(tiny, asked, image=picture, mask=mask, metadata=False)
    assert len(calls) == 4
    before, after, inside = np.asarray(picture), np.asarray(edited), np.asarray(mask) > 0
    assert edited.size == picture.size
    assert np.array_equal(before[~inside], after[~inside])
    assert not np.array_equal(before[inside], after[inside])


def test_masked_only_of_a_box_of_the_working_size_is_inpainting_of_that_part(tiny: Model) -> None:
    picture, mask = scene(3 * SIZE, 2 * SIZE), masked(3 * SIZE, 2 * SIZE, (SIZE + 8, 20, 2 * SIZE - 8, SIZE + 4))
    box = inset(picture, mask, 8, (SIZE, SIZE)).box
    assert box == (SIZE, 12, 2 * SIZE, SIZE + 12)
    asked = request(width=SIZE, height=SIZE)
    (alone,) = generate(tiny, asked, image=picture.crop(box), mask=mask.crop(box), metadata=False)
    again = request(width=SIZE, height=SIZE, masked_only=True, padding=8)
    (whole,) = generate(tiny, again, image=picture, mask=mask, metadata=False)
    assert whole.crop(box).tobytes() == alone.tobytes()


@pytest.mark.parametrize(
    ("mask_box", "padding", "size", "box"),
    [
        ((10, 10, 20, 20), 0, (64, 64), (10, 10, 20, 20)),
        ((10, 10, 20, 20), 5, (64, 64), (5, 5, 25, 25)),
        ((10, 10, 30, 20), 0, (64, 64), (10, 5, 30, 25)),  # made square around its middle
        ((10, 10, 30, 20), 0, (64, 128), (10, 0, 30, 40)),  # twice as high as wide, pushed off the upper edge
        ((90, 60, 100, 80), 0, (64, 64), (80, 60, 100, 80)),  # pushed off the right edge
        ((0, 0, 100, 80), 9, (64, 64), (0, 0, 100, 80)),  # no room for another shape
        ((0, 0, 0, 0), 4, (64, 64), (0, 0, 100, 80)),  # nothing is masked
    ],
)
def test_the_box_is_the_mask_with_padding_in_the_working_shape(
    mask_box: tuple[int, int, int, int], padding: int, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    mask = masked(100, 80, mask_box) if mask_box[2] else Image.new("L", (100, 80))
    assert inset(scene(100, 80), mask, padding, size).box == box


def test_an_inverted_mask_is_the_mask_with_its_colours_exchanged(tiny: Model) -> None:
    mask = masked(SIZE, SIZE, (0, 0, SIZE // 2, SIZE))
    other = masked(SIZE, SIZE, (SIZE // 2, 0, SIZE, SIZE))
    inverted = generate(tiny, request(mask_invert=True), image=scene(), mask=mask, metadata=False)
    assert inverted[0].tobytes() == generate(tiny, request(), image=scene(), mask=other, metadata=False)[0].tobytes()


def test_what_is_under_the_mask_is_as_asked(tiny: Model) -> None:
    mask = masked(SIZE, SIZE, (0, 0, 32, 64))
    known, noise = torch.full((1, 4, 8, 8), 2.0), torch.full((1, 4, 8, 8), 3.0)
    zeros = torch.zeros_like(known)

    def content(kind: str | None) -> torch.Tensor:
        job = prepare(tiny, request(masked_content=kind, strength=0.5), image=scene(), mask=mask)
        found = under_mask(job, known, zeros, noise)
        assert torch.equal(found[..., 4:], known[..., 4:])  # the mask covers the cells on the left
        return found[..., :4]

    assert torch.equal(content(None), known[..., :4])
    assert torch.equal(content("original"), known[..., :4])
    assert torch.equal(content("noise"), noise[..., :4])
    assert torch.equal(content("nothing"), zeros[..., :4])
    job = prepare(tiny, request(masked_content="fill", strength=0.5), image=scene(), mask=mask)
    assert torch.equal(content("fill"), job.filled_posterior.mean[..., :4])


def test_masked_content_original_is_what_is_done_without_it(tiny: Model) -> None:
    mask = masked(SIZE, SIZE, (8, 8, 40, 40))
    plain = generate(tiny, request(strength=0.6), image=scene(), mask=mask, metadata=False)[0]
    asked = request(strength=0.6, masked_content="original")
    assert generate(tiny, asked, image=scene(), mask=mask, metadata=False)[0].tobytes() == plain.tobytes()


def test_filling_keeps_what_is_known_and_takes_the_colours_around() -> None:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(1, 3, 37, 50, generator=generator)
    unknown = torch.zeros(1, 1, 37, 50)
    unknown[..., 10:30, 5:45] = 1
    filled = filled_from_around(pixels, unknown)
    assert torch.equal(filled[(unknown == 0).expand_as(filled)], pixels[(unknown == 0).expand_as(filled)])
    assert filled.min() >= pixels.min()
    assert filled.max() <= pixels.max()
    flat = torch.full_like(pixels, 0.25)
    flat[..., 12:20, 12:20] = 9.0  # hidden, so it must not be seen
    assert torch.allclose(filled_from_around(flat, unknown), torch.full_like(flat, 0.25), atol=1e-6)
    halves = torch.cat([torch.zeros(1, 3, 37, 25), torch.ones(1, 3, 37, 25)], dim=3)
    mixed = filled_from_around(halves, unknown)
    assert mixed[..., 20, 6].max() < 0.2  # near the dark side
    assert mixed[..., 20, 43].min() > 0.8  # and near the bright one


def test_filling_everything_gives_grey() -> None:
    assert torch.equal(filled_from_around(torch.rand(1, 3, 9, 9), torch.ones(1, 1, 9, 9)), torch.zeros(1, 3, 9, 9))


def test_stretching_changes_the_shape_and_filling_keeps_it() -> None:
    picture = scene(60, 30)
    assert stretch(picture, 40, 40).tobytes() == picture.resize((40, 40), Image.Resampling.LANCZOS).tobytes()
    filled = np.asarray(fit_and_fill(picture, 60, 50))
    assert np.array_equal(filled[10:40], np.asarray(picture))
    assert (filled[:10] == filled[10]).all()
    assert (filled[40:] == filled[39]).all()
    assert fit_and_fill(picture, 60, 30) is picture


@pytest.mark.parametrize("mode", ["crop", "stretch", "fill"])
def test_a_start_picture_is_fitted_as_asked(tiny: Model, mode: str) -> None:
    fit = {
        "crop": lambda p: p.crop((SIZE // 2, 0, SIZE // 2 + SIZE, SIZE)),
        "stretch": lambda p: stretch(p, SIZE, SIZE),
    }
    fit["fill"] = lambda p: fit_and_fill(p, SIZE, SIZE)
    wide = scene(2 * SIZE, SIZE)
    asked = request(strength=0.5, width=SIZE, height=SIZE, resize_mode=mode)
    (made,) = generate(tiny, asked, image=wide, metadata=False)
    plain = request(strength=0.5, width=SIZE, height=SIZE)
    assert made.tobytes() == generate(tiny, plain, image=fit[mode](wide), metadata=False)[0].tobytes()


def test_a_latent_is_stretched_in_place_of_the_picture(tiny: Model) -> None:
    wide = scene(2 * SIZE, SIZE)
    job = prepare(tiny, request(strength=0.5, width=SIZE, height=2 * SIZE, resize_mode="latent"), image=wide)
    own = op.encode_image(tiny, to_pixels([wide])).mean
    expected = torch.nn.functional.interpolate(own, size=(2 * SIZE // 8, SIZE // 8), mode="bilinear")
    assert torch.equal(job.posterior.mean, expected) and not job.posterior.std.any()
    asked = request(strength=0.0, width=SIZE, height=2 * SIZE, resize_mode="latent")
    assert generate(tiny, asked, image=wide, metadata=False)[0].tobytes() == stretch(wide, SIZE, 2 * SIZE).tobytes()
    same = request(strength=0.5, width=SIZE, height=SIZE)
    latent, plain = (
        generate(tiny, replace(same, resize_mode=mode), image=scene(), metadata=False)[0] for mode in ("latent", None)
    )
    assert latent.tobytes() == plain.tobytes()  # nothing has to be scaled
    with pytest.raises(RequestError, match="resize_mode is 'latent' with a mask"):
        prepare(tiny, request(resize_mode="latent"), image=wide, mask=masked(2 * SIZE, SIZE, (8, 8, 40, 40)))


def test_a_nine_channel_model_works_on_what_is_masked_alone(pair: Callable[[str], Pair]) -> None:
    model = pair("inpaint").ours
    picture, mask = scene(100, 100), masked(100, 100, (10, 10, 30, 30))
    asked = request(masked_only=True, masked_content="fill", width=SIZE, height=SIZE)
    (edited,) = generate(model, asked, image=picture, mask=mask, metadata=False)
    inside = np.asarray(mask) > 0
    assert np.array_equal(np.asarray(picture)[~inside], np.asarray(edited)[~inside])


def test_the_start_of_a_run_at_full_strength_is_noise_whatever_is_under_the_mask(tiny: Model) -> None:
    mask = masked(SIZE, SIZE, (8, 8, 40, 40))
    starts = []
    for content in ("original", "nothing"):
        job = prepare(tiny, request(masked_content=content, strength=1.0), image=scene(), mask=mask)
        starts.append(begin(job, next(batches(job))).x)
    assert torch.equal(*starts)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"masked_only": True}, "masked_only"),
        ({"mask_invert": True}, "mask_invert"),
        ({"masked_content": "fill"}, "masked_content"),
        ({"padding": 0}, "padding"),
        ({"resize_mode": "fill"}, "resize_mode"),
    ],
)
def test_a_field_about_a_picture_that_is_not_there_is_refused(
    tiny: Model, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(RequestError) as caught:
        prepare(tiny, request(**changes))
    assert caught.value.field == field


def test_the_record_tells_how_the_mask_was_used_and_replays(tiny: Model, tmp_path: Path) -> None:
    picture, mask = scene(100, 90), masked(100, 90, (10, 10, 30, 30))
    picture.save(tmp_path / "picture.png")
    mask.save(tmp_path / "mask.png")
    asked = request(
        masked_only=True, masked_content="noise", mask_invert=True, mask_blur=2.0, width=SIZE, height=SIZE, strength=0.5
    )
    (edited,) = generate(tiny, asked, image=picture, mask=mask)
    save(edited, tmp_path / "edited.png")
    told = parse_infotext(edited.info["parameters"]).parameters
    assert told["Inpaint area"] == "Only masked"
    assert told["Masked area padding"] == "32"
    assert told["Masked content"] == "latent noise"
    assert told["Mask mode"] == "Inpaint not masked"
    found = describe(tmp_path / "edited.png").request
    assert found is not None
    assert (found.masked_only, found.padding, found.mask_invert) == (True, 32, True)
    assert replay(tmp_path / "edited.png", model=str(tiny.source)).outcome == "identical"
