"""Pictures that tile: nobody can find the seam, because rolling what goes in rolls what comes out."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_generation import PROMPT, array, one
from test_reference import largest
from tiny_models import Pair, scene

from sfumato import operations as op
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.presets import PRESETS
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.guides import tiled, whole_stride
from sfumato.model import Model

CELLS = (8, 16)  # rows and columns
STRIDE = 2  # of the tiny UNet's two levels, in latent cells
SHIFTS = {"x": (0, 6), "y": (4, 0), "both": (4, 6)}
GUIDES = op.Guidance(
    scale=5.0, perturbed_attention=op.PerturbedAttention(2.0), self_attention=op.SelfAttentionGuidance()
)


def latent_of(model: Model, sampler: str, guidance: op.Guidance, shift: tuple[int, int]) -> torch.Tensor:
    """The latent of a run whose noise, at the start and in every step, is rolled by so many cells."""

    def noise(index: int) -> torch.Tensor:
        drawn = torch.randn(1, 4, *CELLS, generator=torch.Generator().manual_seed(100 + index))
        return drawn.roll(shift, (2, 3))

    source: Noise = noise
    canvas = op.Canvas(8 * CELLS[1], 8 * CELLS[0], 8)
    positive, negative = op.encode_text(model, PROMPT, "", canvas)
    sampling = replace(PRESETS["euler"], sampler=sampler, spacing="karras", options=())
    sigmas = sampling.sigmas(model.schedule, 4)
    denoise = op.guided(model, positive, negative, guidance, sampling.lookup(model.schedule, sigmas))
    (*_, last) = sampling.run(denoise, noise(-1) * sigmas[0], sigmas, source, schedule=model.schedule)
    return last.x


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_rolling_the_noise_rolls_the_latent_in_every_sampler(sampler: str, tiny: Model) -> None:
    model = tiled(tiny, "both")
    plain = op.Guidance(scale=5.0)
    expected = latent_of(model, sampler, plain, (0, 0)).roll((4, 6), (2, 3))
    found = latent_of(model, sampler, plain, (4, 6))
    assert float((found - expected).norm() / expected.norm()) <= 1e-4  # sums in another order, through 4 steps


@pytest.mark.parametrize("tiling", SHIFTS)
def test_rolling_the_noise_rolls_the_picture(tiling: str, tiny: Model) -> None:
    model = tiled(tiny, tiling)  # type: ignore[arg-type]
    shift = SHIFTS[tiling]
    pixels = [op.decode(model, latent_of(model, "euler", GUIDES, each)) for each in ((0, 0), shift)]
    expected = pixels[0].roll((8 * shift[0], 8 * shift[1]), (2, 3))
    assert float((pixels[1] - expected).abs().max()) <= 2 / 255
    plain = [op.decode(tiny, latent_of(tiny, "euler", GUIDES, each)) for each in ((0, 0), shift)]
    assert float((plain[1] - plain[0].roll((8 * shift[0], 8 * shift[1]), (2, 3))).abs().max()) > 20 / 255


@pytest.mark.parametrize("cells", [(1, 0), (0, 3), (3, 5)])
def test_the_picture_of_a_latent_rolled_by_any_cell_is_the_rolled_picture(cells: tuple[int, int], tiny: Model) -> None:
    model = tiled(tiny, "both")
    latent = torch.randn(1, 4, *CELLS, generator=torch.Generator().manual_seed(3))
    expected = op.decode(model, latent).roll((8 * cells[0], 8 * cells[1]), (2, 3))
    assert float((op.decode(model, latent.roll(cells, (2, 3))) - expected).abs().max()) <= 1e-5
    encoded = op.encode_image(model, expected.clamp(-1, 1)).mean
    rolled = op.encode_image(model, expected.clamp(-1, 1).roll((16, 24), (2, 3))).mean
    assert float((rolled - encoded.roll((2, 3), (2, 3))).abs().max()) <= 1e-5


def test_the_whole_stride_is_that_of_both_networks(pair: Callable[[str], Pair]) -> None:
    assert whole_stride(pair("sd1").ours) == 8 * STRIDE


def test_img2img_and_inpainting_tile_too(tiny: Model) -> None:
    """A picture rolled by whole strides gives the same picture, rolled, where no noise tells where it is."""
    start = scene()
    turned = Image.fromarray(np.roll(np.asarray(start), (32, 16), (0, 1)))
    model = tiled(tiny, "both")
    for before, after in ((start, turned),):
        first, second = (op.encode_image(model, op.to_pixels([each])).mean for each in (before, after))
        assert float((second - first.roll((4, 2), (2, 3))).abs().max()) <= 1e-5
    mask = Image.new("L", start.size, 0)
    mask.paste(255, (0, 0, 16, 64))
    edited = one(tiny, image=start, mask=mask, tiling="x")
    kept = np.asarray(mask) == 0
    assert np.array_equal(array(edited)[kept], array(start)[kept])
    assert largest(edited, one(tiny, image=start, mask=mask)) > 3
