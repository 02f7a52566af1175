"""What the renderer draws is what the scene says, whatever the size of the picture and the company in the batch."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sfumato.scenes.distances import union
from sfumato.scenes.palettes import LANDS
from sfumato.scenes.render import layout, render
from sfumato.scenes.scene import Scene, Thing, scene
from sfumato.scenes.shapes import SHAPES
from sfumato.scenes.vocabulary import BACKGROUNDS, COLOURS, KINDS, SIZES, STYLES

# Kinds that show their own colour, unshaded and unbroken, at the centre: (u, v) in half extents from it.
SOLID = {
    "house": (0.0, 0.2),
    "tree": (0.0, -0.3),
    "flower": (0.0, -0.7),
    "car": (0.0, 0.2),
    "boat": (0.0, 0.6),
    "fish": (-0.1, 0.0),
    "ball": (0.6, 0.0),
    "star": (0.0, 0.0),
    "moon": (-0.6, 0.0),
    "heart": (0.0, 0.0),
}
TINT = 0.02  # how far a thing's colour may lie from its palette entry, in [0, 1]


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


@pytest.mark.parametrize("style", STYLES)
def test_a_small_thing_does_not_depend_on_a_large_one_beside_it_in_the_batch(style: str) -> None:
    """Things of a kind are painted in windows as large as the largest needs; nothing reaches to a window's edge."""
    scenes = [one("ball", things=(Thing("ball", "red", size, 0.5, 0.6),), style=style) for size in SIZES]
    together = render(scenes, 128)
    for drawn, picture in zip(scenes, together, strict=True):
        torch.testing.assert_close(render([drawn], 128)[0], picture, rtol=0, atol=1e-5)  # rounding of the coordinates


@pytest.mark.parametrize("size", [32, 72, 256])
def test_every_picture_size_is_drawn(size: int) -> None:
    scenes = [scene(6, index, counts=(0.5, 0.5)) for index in range(6)]
    small, large = F.adaptive_avg_pool2d(render(scenes, size), 8), F.adaptive_avg_pool2d(render(scenes, 128), 8)
    assert float((small - large).abs().mean()) < 0.02  # lines and shadows are of whole pixels


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
    reach = SIZES["small"] * 128 + 1  # and a pixel of anti-aliasing
    shadow = 3 + 2 + 1  # it is moved, grown and blurred by so many pixels of 128
    assert -reach <= float((columns + 0.5 - x * 128).min()) <= float((columns + 0.5 - x * 128).max()) <= reach + shadow
    assert -reach <= float((rows + 0.5 - y * 128).min()) <= float((rows + 0.5 - y * 128).max()) <= reach + shadow


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_flat_background_is_cut_from_five_papers(background: str) -> None:
    """Its commonest colours are the three of the sky and the lighter one of either ridge, and cover most of it."""
    drawn = one("ball", things=(), background=background)
    pixels = ((render([drawn], 128)[0] + 1) / 2).flatten(1).T  # [pixels, 3]
    land = LANDS[background]
    papers = torch.tensor([*land.sky, land.far[0], land.near[0]])
    nearest, which = (pixels[:, None] - papers).abs().amax(dim=2).min(dim=1)
    assert float((nearest < 1e-5).float().mean()) > 0.75  # the rest is shadow, edges and the stars of the night
    counts = torch.bincount(which[nearest < 1e-5], minlength=5) / len(pixels)
    assert float(counts.min()) > 0.02


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_ground_begins_at_the_horizon(background: str, style: str) -> None:
    """A scene with a lower horizon has the same sky there where the other one has ground."""
    drawn = one("ball", things=(), background=background, style=style)
    high, low = render([replace(drawn, horizon=0.56), replace(drawn, horizon=0.68)], 128)
    difference = (high - low).abs().amax(dim=0)
    # ridges rise and fall by 0.045 at most: rows 78 to 81 are ground in one picture and sky in the other
    assert float(difference[78:81].mean()) > 2 * float(difference[110:].mean())


def test_the_night_sky_has_stars_and_the_same_ones_every_time() -> None:
    drawn = one("ball", things=(), background="night")
    sky = render([drawn], 128)[0, :, :60]
    assert float(sky.amin(dim=0).amax()) > 0.2  # no paper of the night's sky has as much red as that
    assert not torch.equal(sky, render([replace(drawn, texture=4)], 128)[0, :, :60])


@pytest.mark.parametrize("kind", ["heart", "star", "tree"])
def test_these_kinds_are_the_same_in_a_mirror(kind: str) -> None:
    grid = torch.linspace(-1.2, 1.2, 97)
    u, v = torch.meshgrid(grid, grid, indexing="xy")
    for (distance, _), (mirrored, _) in zip(SHAPES[kind](u, v), SHAPES[kind](-u, v), strict=True):
        torch.testing.assert_close(distance, mirrored, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shape_fills_its_square_and_stays_in_it(kind: str) -> None:
    grid = torch.linspace(-1.5, 1.5, 301)
    u, v = torch.meshgrid(grid, grid, indexing="xy")
    inside = union(*(distance for distance, _ in SHAPES[kind](u, v))) < 0
    reach = torch.maximum(u[inside].abs().max(), v[inside].abs().max())
    assert 0.85 <= float(reach) <= 1.0 + 0.01  # a step of the grid


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", STYLES)
def test_a_small_picture_is_the_average_of_a_large_one(kind: str, style: str) -> None:
    """That is what anti-aliasing means. Coverage is told from a distance, so corners and lines thinner than a pixel
    deviate, a little and in few places."""
    drawn = [one(kind, things=(Thing(kind, "blue", "medium", 0.53, 0.47),), style=style, background="snow")]
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


def test_the_layout_agrees_with_the_pictures() -> None:
    """Cells that name a thing differ from the picture without it, and cells far from them do not."""
    scenes = [replace(scene(4, index, counts=(1.0, 1.0)), style="flat") for index in range(60)]
    kinds, _ = layout(scenes, 16)
    difference = (render(scenes, 128) - render([replace(drawn, things=()) for drawn in scenes], 128)).abs().amax(dim=1)
    at_centre = difference.unfold(1, 8, 8).unfold(2, 8, 8)[..., 3:5, 3:5].amax(dim=(-2, -1))  # [B, 16, 16]
    named = kinds > 0
    assert float((at_centre[named] > 0.05).float().mean()) > 0.97  # white on snow is paper on paper
    near = F.max_pool2d(named[:, None].float(), 5, stride=1, padding=2)[:, 0] > 0
    # tips and shadows miss the centres of their cells; two cells off, only the faint end of a shadow is left
    assert float(at_centre[~near].max()) < 0.1
