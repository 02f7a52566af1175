"""What the renderer draws is what the scene says, whatever the size of the picture and the company in the batch."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sfumato.scenes.render import layout, render
from sfumato.scenes.scene import Scene, Thing, scene
from sfumato.scenes.vocabulary import BACKGROUNDS, COLOURS, KINDS, SIZES

# Kinds that show their own colour, unshaded and unbroken, at the centre: (u, v) in half extents from it.
SOLID = {
    "house": (0.0, 0.2),
    "tree": (0.0, -0.3),
    "flower": (0.0, -0.7),
    "car": (0.0, 0.2),
    "boat": (0.0, 0.6),
    "fish": (-0.1, 0.0),
    "ball": (0.0, 0.6),
    "star": (0.0, 0.0),
    "moon": (-0.6, 0.0),
    "heart": (0.0, 0.0),
}
TINT = 0.03  # how far a thing's colour may lie from its palette entry, in [0, 1]


def one(kind: str, colour: str = "red", **changes: object) -> Scene:
    thing = Thing(kind, colour, "large", 0.5, 0.5)
    return replace(Scene((thing,), "grass", "flat", 0.6, 3), **changes)


def test_the_same_scenes_give_the_same_bytes() -> None:
    scenes = [scene(1, index, counts=(1.0, 1.0)) for index in range(12)]
    assert torch.equal(render(scenes), render(scenes))


def test_a_picture_does_not_depend_on_its_batch_or_its_place_in_it() -> None:
    scenes = [scene(1, index, counts=(1.0, 1.0)) for index in range(12)]
    together = render(scenes, 64)
    for index in (0, 5, 11):
        # 1e-6: vectorised arithmetic may round another way in another place of a batch
        torch.testing.assert_close(render([scenes[index]], 64)[0], together[index], rtol=0, atol=1e-6)
    torch.testing.assert_close(render(scenes[::-1], 64), together.flip(0), rtol=0, atol=1e-6)


def test_pixels_are_within_the_range_and_finite() -> None:
    pictures = render([scene(2, index, counts=(1.0, 1.0, 1.0)) for index in range(40)], 64)
    assert pictures.shape == (40, 3, 64, 64)
    assert pictures.dtype == torch.float32
    assert float(pictures.min()) >= -1
    assert float(pictures.max()) <= 1


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_has_its_palette_colour_where_it_is(kind: str, colour: str) -> None:
    u, v = SOLID[kind]
    half = SIZES["large"]
    picture = (render([one(kind, colour)], 128)[0] + 1) / 2
    pixel = picture[:, int((0.5 + v * half) * 128), int((0.5 + u * half) * 128)]
    expected = torch.tensor(COLOURS[colour]).clamp(0, 1)
    assert float((pixel - expected).abs().max()) <= TINT + 1e-6


@pytest.mark.parametrize("place", [(0.25, 0.25), (0.75, 0.5), (0.5, 0.75)])
def test_a_thing_lies_around_its_centre_and_nowhere_else(place: tuple[float, float]) -> None:
    x, y = place
    small = Thing("ball", "red", "small", x, y)
    drawn = render([one("ball", things=(small,))], 128)[0]
    changed = (drawn - render([one("ball", things=())], 128)[0]).abs().amax(dim=0) > 1e-3
    rows, columns = changed.nonzero(as_tuple=True)
    reach = SIZES["small"] * 1.05 * 128 + 1  # the outline lies half outside, and a pixel of anti-aliasing
    assert float((columns + 0.5 - x * 128).abs().max()) <= reach
    assert float((rows + 0.5 - y * 128).abs().max()) <= reach


@pytest.mark.parametrize("background", [name for name in BACKGROUNDS if name != "night"])  # night has stars
def test_a_background_is_its_two_gradients_meeting_at_the_horizon(background: str) -> None:
    picture = (render([one("ball", things=(), background=background)], 128)[0] + 1) / 2
    colours = BACKGROUNDS[background]
    middle = (torch.arange(128) + 0.5) / 128
    for row in (0, 40, 75, 79, 100, 127):
        over = middle[row] < 0.6
        part = middle[row] / 0.6 if over else (middle[row] - 0.6) / 0.4
        top, bottom = (torch.tensor(end) for end in (colours.sky if over else colours.ground))
        expected = torch.lerp(top, bottom, part)[:, None].expand(3, 128)
        # no row here is cut by the horizon (row 76); float32 rounding of a handful of operations
        torch.testing.assert_close(picture[:, row], expected, rtol=0, atol=1e-5)


def test_the_night_sky_has_stars_and_the_same_ones_every_time() -> None:
    drawn = one("ball", things=(), background="night")
    sky = render([drawn], 128)[0, :, :60]
    assert float(sky.amax()) > 0.0  # brighter than any entry of the gradient
    assert not torch.equal(sky, render([replace(drawn, texture=4)], 128)[0, :, :60])


@pytest.mark.parametrize("kind", ["heart", "star", "tree", "flower"])
@pytest.mark.parametrize("style", ["flat", "outline"])
def test_a_mirrored_scene_gives_the_mirrored_picture(kind: str, style: str) -> None:
    left = one(kind, things=(Thing(kind, "red", "medium", 0.3, 0.5),), style=style)
    right = replace(left, things=(replace(left.things[0], x=0.7),))
    drawn, mirrored = render([left, right], 128)
    if kind == "flower":  # its leaves are not symmetric
        drawn, mirrored = drawn[:, :60], mirrored[:, :60]
    torch.testing.assert_close(drawn, mirrored.flip(-1), rtol=0, atol=1e-4)  # 0.3 and 0.7 are rounded in float32


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_picture_is_the_average_of_a_large_one(kind: str) -> None:
    """That is what anti-aliasing means. Coverage is told from a distance, so corners and lines thinner than a pixel
    deviate, a little and in few places."""
    drawn = [one(kind, things=(Thing(kind, "blue", "medium", 0.53, 0.47),), style="outline", background="snow")]
    difference = (render(drawn, 128) - F.avg_pool2d(render(drawn, 512), 4)).abs()
    mean, share_off = float(difference.mean()), float((difference.amax(dim=1) > 0.25).float().mean())
    assert mean < 0.003  # of a range of 2
    assert share_off < 0.003


def test_a_shift_by_a_part_of_a_pixel_changes_that_part_of_the_picture() -> None:
    """Without anti-aliasing a shift would change nothing, and then everything at once."""

    def at(x: float) -> torch.Tensor:
        return render([one("heart", things=(Thing("heart", "red", "medium", x, 0.5),))], 64)[0]

    pixel = 1 / 64
    whole = float((at(0.4 + pixel) - at(0.4)).abs().sum())
    for quarter in range(4):
        step = float((at(0.4 + pixel * (quarter + 1) / 4) - at(0.4 + pixel * quarter / 4)).abs().sum())
        assert 0.7 * whole / 4 < step < 1.5 * whole / 4  # a thin edge is crossed faster at some of the quarters


def test_later_things_lie_over_earlier_ones() -> None:
    below = Thing("ball", "red", "large", 0.5, 0.5)
    above = Thing("star", "blue", "medium", 0.5, 0.5)
    pixel = (render([one("ball", things=(below, above))], 128)[0, :, 64, 64] + 1) / 2
    assert float((pixel - torch.tensor(COLOURS["blue"])).abs().max()) <= TINT + 1e-6


def test_the_layout_names_what_the_picture_shows() -> None:
    left, right = Thing("heart", "red", "medium", 0.25, 0.5), Thing("star", "white", "small", 0.75, 0.25)
    kinds, colours = layout([one("heart", things=(left, right))], 16)
    named = list(KINDS), list(COLOURS)
    assert (int(kinds[0, 8, 4]), int(colours[0, 8, 4])) == (1 + named[0].index("heart"), 1 + named[1].index("red"))
    assert (int(kinds[0, 4, 12]), int(colours[0, 4, 12])) == (1 + named[0].index("star"), 1 + named[1].index("white"))
    assert int(kinds[0, 0, 0]) == int(colours[0, 15, 15]) == 0
    assert torch.equal(kinds > 0, colours > 0)
