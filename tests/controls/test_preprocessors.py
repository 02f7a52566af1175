"""What pictures are turned into for control networks, against OpenCV where it has the same."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from sfumato.controls.preprocess import MAKERS, preprocess
from sfumato.errors import RequestError
from sfumato.request import PREPROCESSORS, checked_options


def noisy(height: int, width: int, seed: int = 0, blur: float = 2.0) -> Image.Image:
    """Random blots."""
    draw = np.random.Generator(np.random.PCG64(seed))
    levels = cv2.GaussianBlur(draw.random((height, width, 3)).astype(np.float32), (0, 0), blur)
    levels = (levels - levels.min()) / (levels.max() - levels.min())
    return Image.fromarray((levels * 255).astype(np.uint8))


def shapes() -> Image.Image:
    """Flat colours with straight and round edges, on which gradients tie."""
    picture = np.full((96, 80, 3), (200, 220, 250), np.uint8)
    cv2.rectangle(picture, (10, 20), (50, 60), (180, 40, 40), -1)
    cv2.circle(picture, (55, 60), 22, (40, 120, 200), -1)
    cv2.line(picture, (0, 95), (79, 10), (20, 20, 20), 1)
    return Image.fromarray(picture)


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "blots": lambda: noisy(97, 130),
    "fine blots": lambda: noisy(64, 64, 1, 0.8),
    "noise": lambda: noisy(40, 50, 2, 0.01),
    "shapes": shapes,
    "one row": lambda: noisy(1, 40, 3),
    "grey": lambda: noisy(60, 60, 4).convert("L").convert("RGB"),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize(("low", "high"), [(100, 200), (20, 60), (0, 1), (200, 100), (255, 255)])
def test_canny_equals_that_of_opencv(name: str, low: int, high: int) -> None:
    picture = PICTURES[name]()
    found = np.asarray(preprocess(picture, "canny", {"low": low, "high": high}))
    expected = cv2.Canny(np.asarray(picture), low, high)
    assert np.array_equal(found, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("name", ["blots", "shapes", "grey"])
def test_binary_equals_otsus_threshold_of_opencv(name: str) -> None:
    picture = PICTURES[name]()
    grey = np.asarray(picture.convert("L"))
    _, expected = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    assert np.array_equal(np.asarray(preprocess(picture, "binary", {}))[..., 0], expected)


@pytest.mark.parametrize("sigma", [1.0, 3.3, 9.0])
def test_blur_equals_that_of_opencv(sigma: float) -> None:
    picture = noisy(97, 130)
    found = np.asarray(preprocess(picture, "blur", {"sigma": sigma})).astype(float)
    expected = cv2.GaussianBlur(np.asarray(picture).astype(np.float64), (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    assert np.abs(found - expected).max() < 0.6  # half a level of rounding, and where the two cut the Gaussian off


def test_luminance_equals_the_lightness_of_opencv() -> None:
    picture = noisy(97, 130)
    found = np.asarray(preprocess(picture, "luminance", {}))[..., 0].astype(float)
    expected = cv2.cvtColor(np.asarray(picture).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0] * 2.55
    assert np.abs(found - expected).max() < 1.0  # half a level of rounding, and OpenCV's tables


def test_scribble_equals_what_sd_webui_makes_with_opencv() -> None:
    picture = shapes()
    levels = np.asarray(picture).astype(np.float64)
    narrow, wide = (cv2.GaussianBlur(levels, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for sigma in (0.5, 5.0))
    lighter = (255 - (wide - narrow).min(axis=2)).clip(0, 255).astype(np.uint8)
    expected = np.where(2 * (255 - lighter.astype(int)) > 32, 255, 0)
    found = np.asarray(preprocess(picture, "scribble", {}))[..., 0]
    assert (found != expected).mean() < 0.002  # pixels on the threshold
    assert 0.02 < (found > 0).mean() < 0.5


def test_a_soft_edge_is_brightest_on_the_edge_and_black_away_from_it() -> None:
    picture = Image.new("RGB", (64, 64), (0, 0, 0))
    picture.paste((200, 30, 30), (32, 0, 64, 64))
    found = np.asarray(preprocess(picture, "soft_edge", {}))[..., 0].astype(int)
    assert found[:, 31:33].min() == 255
    assert found[:, :24].max() == found[:, 40:].max() == 0


def test_tile_colour_threshold_and_invert_are_what_they_say() -> None:
    picture = noisy(64, 64)
    levels = np.asarray(picture).astype(float)
    assert preprocess(picture, "tile", {}).tobytes() == picture.tobytes()
    tiled = np.asarray(preprocess(picture, "tile", {"factor": 8})).astype(float)
    assert np.abs(tiled.mean((0, 1)) - levels.mean((0, 1))).max() < 2
    cells = np.asarray(preprocess(picture, "colour", {"cell": 16}))
    assert len(np.unique(cells.reshape(-1, 3), axis=0)) <= 16
    assert (cells[:16, :16] == cells[0, 0]).all()
    above = np.asarray(preprocess(picture, "threshold", {"level": 100}))[..., 0] == 255
    assert np.array_equal(above, (levels > 100).all(axis=2))
    inverted = preprocess(picture, "invert", {})
    assert np.array_equal(np.asarray(inverted), 255 - levels)
    assert preprocess(inverted, "invert", {}).tobytes() == picture.tobytes()


def test_a_shuffle_has_only_colours_of_the_picture_and_follows_its_seed() -> None:
    picture = Image.new("RGB", (96, 64), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 0, 48, 64))
    once, again, other = (preprocess(picture, "shuffle", {"seed": seed}) for seed in (1, 1, 2))
    assert once.tobytes() == again.tobytes() != other.tobytes()
    levels = np.asarray(once).astype(int)
    assert np.abs(levels[..., 0] + levels[..., 2] - 255).max() <= 1  # mixtures of both
    assert np.asarray(once)[..., 1].max() == 0


@pytest.mark.parametrize("name", PREPROCESSORS)
def test_every_preprocessor_keeps_the_size_and_the_colours(name: str) -> None:
    for size in ((40, 24), (16, 16)):
        made = preprocess(noisy(size[1], size[0]), name, {})
        assert (made.size, made.mode) == (size, "RGB")


def test_the_table_of_the_request_and_the_makers_name_the_same() -> None:
    assert list(PREPROCESSORS) == list(MAKERS)
    assert checked_options("canny", {"high": 250}) == {"low": 100, "high": 250}


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("cany", {}, "did you mean 'canny'"),
        ("canny", {"lo": 1}, "those of canny are: low, high"),
        ("canny", {"low": -1}, "canny's low is -1; it must be a number from 0 to 1000"),
        ("invert", {"a": 1}, "none"),
    ],
)
def test_a_wrong_preprocessor_or_option_is_told(name: str, options: dict[str, float], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        checked_options(name, options)
