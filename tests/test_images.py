"""Pictures in: every mode and orientation becomes the upright RGB that is seen; masks, fitting, and how alike."""

import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from sfumato.errors import PictureError
from sfumato.images import (
    MAX_SIDE,
    crop_to_fill,
    feather,
    grid,
    open_picture,
    pad_to_multiple,
    psnr,
    ssim,
    to_levels,
    to_mask,
    to_pictures,
    to_pixels,
    to_rgb,
)


def colours(width: int = 12, height: int = 8) -> Image.Image:
    """A picture without any symmetry."""
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


TURNS = {  # EXIF 2.3, tag 274: what was done to the upright picture to store it
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", sorted(TURNS))
def test_every_exif_orientation_becomes_the_upright_picture(orientation: int) -> None:
    upright = colours()
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(TURNS[orientation](np.asarray(upright))))
    found = to_rgb(open_picture(encoded(stored, exif=exif)))
    assert found.tobytes() == upright.tobytes()


def test_sixteen_bits_are_rounded_not_clipped() -> None:
    ramp = np.arange(0, 65_536, 17, dtype=np.uint16).reshape(1, -1)
    found = array(to_rgb(open_picture(encoded(Image.fromarray(ramp)))))[0]
    assert np.abs(found - ramp[0, :, None] / 257).max() <= 0.5 + 1e-9
    assert (np.diff(found[:, 0]) >= 0).all()
    assert (found[0] == 0).all()
    assert (found[-1] == 255).all()


def test_transparent_parts_lie_on_white() -> None:
    red = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    red.putpixel((1, 0), (255, 0, 0, 0))
    red.putpixel((2, 0), (0, 0, 0, 51))
    expected = [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]
    assert array(to_rgb(open_picture(encoded(red)))).tolist() == expected
    grey = Image.new("LA", (2, 1), (0, 255))
    grey.putpixel((1, 0), (0, 0))
    assert array(to_rgb(open_picture(encoded(grey)))).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_palette_with_a_transparent_colour_lies_on_white() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 255, 10, 20, 30])
    picture.putpixel((1, 0), 1)
    assert array(to_rgb(open_picture(encoded(picture)))).tolist() == [[[0, 0, 255], [10, 20, 30]]]
    assert array(to_rgb(open_picture(encoded(picture, transparency=0)))).tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_an_rgb_picture_with_a_transparent_colour_lies_on_white() -> None:
    picture = Image.new("RGB", (2, 1), (9, 9, 9))
    picture.putpixel((1, 0), (1, 2, 3))
    found = to_rgb(open_picture(encoded(picture, transparency=(9, 9, 9))))
    assert array(found).tolist() == [[[255, 255, 255], [1, 2, 3]]]


@pytest.mark.parametrize(("mode", "value"), [("1", 255), ("L", 255), ("RGB", (255, 255, 255))])
def test_white_is_white_in_every_mode(mode: str, value: object) -> None:
    assert (array(to_rgb(open_picture(encoded(Image.new(mode, (4, 4), value))))) == 255).all()


def test_cmyk_is_converted() -> None:
    for ink, colour in (((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0)):
        found = to_rgb(open_picture(encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)))
        assert np.abs(array(found) - colour).max() <= 2
    cyan = array(to_rgb(open_picture(encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=100))))
    assert np.abs(cyan[0, 0] - [0, 255, 255]).max() <= 2


def test_a_colour_profile_is_applied_and_a_broken_one_passed_over() -> None:
    picture = colours()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert to_rgb(open_picture(encoded(picture, icc_profile=srgb))).tobytes() == picture.tobytes()
    assert to_rgb(open_picture(encoded(picture, icc_profile=b"nonsense"))).tobytes() == picture.tobytes()
    linear = picture.copy()
    linear.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    assert to_rgb(linear).size == picture.size


def test_only_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (4, 4), (10, 20, 30)), Image.new("RGB", (4, 4), (90, 90, 90))]
    data = encoded(frames[0], save_all=True, append_images=frames[1:])
    assert to_rgb(open_picture(data)).tobytes() == frames[0].tobytes()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that nothing stands behind."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(MAX_SIDE + 1, 1), (1, 100_000), (8193, 8192), (16_000, 16_000), (65_535, 65_535)])
def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(PictureError, match=r"pixels; at most|too large"):
        open_picture(png_of_size(*size))


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<svg/>", b"\x89PNG\r\n\x1a\n", b"%PDF-1.4", b"RIFF\0\0\0\0WEBP"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(PictureError):
        open_picture(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_picture_is_refused(kind: str) -> None:
    data = encoded(colours(64, 64), kind)
    for share in range(1, 10):
        with pytest.raises(PictureError):
            to_rgb(open_picture(data[: len(data) * share // 10]))


def test_missing_and_unclear_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="no such file"):
        open_picture(tmp_path / "a.png")
    with pytest.raises(PictureError, match="floating-point"):
        to_rgb(Image.new("F", (4, 4)))
    with pytest.raises(PictureError, match="within 0 and 65535"):
        to_rgb(Image.new("I", (4, 4), 70_000))


def test_a_mask_repaints_nothing_where_it_is_transparent() -> None:
    mask = Image.new("RGBA", (3, 1), (255, 255, 255, 255))
    mask.putpixel((1, 0), (255, 255, 255, 0))
    mask.putpixel((2, 0), (0, 0, 0, 255))
    assert array(to_mask(mask)).tolist() == [[255, 0, 0]]
    assert array(to_mask(Image.new("1", (1, 1), 1))).tolist() == [[255]]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(16, 40), st.integers(16, 40))
def test_a_fitted_picture_has_the_asked_size(width: int, height: int, to_width: int, to_height: int) -> None:
    assert crop_to_fill(Image.new("RGB", (width, height)), to_width, to_height).size == (to_width, to_height)


def test_fitting_keeps_the_middle_and_leaves_the_right_size_alone() -> None:
    picture = colours(40, 20)
    assert crop_to_fill(picture, 40, 20).tobytes() == picture.tobytes()
    assert crop_to_fill(picture, 20, 20).tobytes() == picture.crop((10, 0, 30, 20)).tobytes()


def test_bytes_survive_the_way_to_pixels_and_back() -> None:
    every = Image.fromarray(np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3))
    assert to_pictures(to_levels(to_pixels([every])))[0].tobytes() == every.tobytes()


def test_values_that_are_not_finite_make_no_black_picture() -> None:
    levels = torch.zeros(1, 3, 4, 4)
    levels[0, 0, 0, 0] = math.nan
    with pytest.raises(PictureError, match="not finite"):
        to_pictures(levels)


@given(st.integers(1, 20), st.integers(1, 20))
def test_padding_repeats_the_last_row_and_column(width: int, height: int) -> None:
    pixels = torch.arange(width * height, dtype=torch.float32).view(1, 1, height, width)
    padded = pad_to_multiple(pixels, 8)
    assert padded.shape[-1] % 8 == padded.shape[-2] % 8 == 0
    assert padded.shape[-1] - width < 8
    rows = torch.arange(padded.shape[-2]).clamp(max=height - 1)
    columns = torch.arange(padded.shape[-1]).clamp(max=width - 1)
    assert torch.equal(padded, pixels[..., rows, :][..., columns])


@pytest.mark.parametrize("blur", [0.5, 2, 8])
def test_a_feathered_mask_stays_black_where_it_was_black(blur: float) -> None:
    mask = Image.new("L", (80, 80), 0)
    mask.paste(255, (20, 0, 80, 60))
    soft = np.asarray(feather(mask, blur))
    assert (soft[np.asarray(mask) == 0] == 0).all()
    assert soft[20, 60] == 255
    assert soft[0, 79] == 255  # the picture's border is no edge
    assert (np.diff(soft[20].astype(int)) >= 0).all()
    assert feather(mask, 0) is mask


def test_a_grid_is_as_square_as_can_be() -> None:
    pictures = [Image.new("RGB", (4, 2), (place, 0, 0)) for place in range(5)]
    sheet = grid(pictures)
    assert sheet.size == (12, 4)
    assert [sheet.getpixel((x, y)) for y in (0, 2) for x in (0, 4, 8)] == [
        *((place, 0, 0) for place in range(5)),
        (255, 255, 255),
    ]
    assert grid(pictures, columns=5, gap=1).size == (24, 2)
    with pytest.raises(PictureError, match="at least one"):
        grid([])


def test_psnr_and_ssim_of_known_pairs() -> None:
    black, grey = Image.new("RGB", (16, 16)), Image.new("RGB", (16, 16), (10, 10, 10))
    assert psnr(black, black) == math.inf
    assert psnr(black, grey) == pytest.approx(10 * math.log10(255**2 / 100), abs=1e-9)
    assert ssim(grey, grey) == pytest.approx(1.0, abs=1e-12)
    # flat pictures have no structure: equation 13 leaves (2ab + C1) / (a^2 + b^2 + C1)
    c1 = (0.01 * 255) ** 2
    assert ssim(black, grey) == pytest.approx(c1 / (100 + c1), rel=1e-5)
    picture = colours(32, 32)
    inverted = Image.fromarray(255 - np.asarray(picture))
    assert ssim(picture, inverted) < -0.5
    with pytest.raises(PictureError, match="11 pixels"):
        ssim(colours(10, 12), colours(10, 12))
