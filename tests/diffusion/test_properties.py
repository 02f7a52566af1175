"""What holds for any sampler on any spacing: it arrives, finite and the same each time, in as many steps as asked."""

from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toys import SHAPE, network, start

from sfumato.diffusion.denoiser import denoiser
from sfumato.diffusion.presets import PRESETS
from sfumato.diffusion.samplers import SAMPLERS, TAKES_SCHEDULE
from sfumato.diffusion.schedule import scaled_linear
from sfumato.diffusion.spacing import SPACINGS, Grid

SD = scaled_linear()
SMALL = (1, 2, 2, 2)
DENOISE = denoiser(network, SD, "v_prediction")


def drawn(draw: int) -> Tensor:
    return start(1000 + draw, SMALL)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_sampler_runs_on_any_spacing(sampler: str, spacing: str) -> None:
    for steps in range(1, 9):
        for end in (0.0, SD.sigmas[0]):
            sigmas = SPACINGS[spacing](SD, steps, Grid(end=end))
            x = start(0, SMALL) * sigmas[0]
            untouched = x.clone()
            run = list(SAMPLERS[sampler](DENOISE, x, sigmas, drawn))
            assert [step.index for step in run] == list(range(steps))
            assert [step.sigma for step in run] == sigmas[1:]
            assert all(step.x.isfinite().all() and step.denoised.isfinite().all() for step in run)
            assert torch.equal(x, untouched)
    again = list(SAMPLERS[sampler](DENOISE, x, sigmas, drawn))
    assert all(torch.equal(one.x, other.x) for one, other in zip(run, again, strict=True))


FALLING = st.tuples(st.floats(0.01, 3000), st.lists(st.floats(1e-3, 0.999), max_size=6)).map(
    lambda drawn: list(accumulate(drawn[1], lambda level, ratio: level * ratio, initial=drawn[0]))
)


@pytest.mark.parametrize("sampler", SAMPLERS)
@settings(deadline=None, max_examples=25)
@given(levels=FALLING, ends_at_zero=st.booleans())
def test_any_falling_levels_are_walked(sampler: str, levels: list[float], ends_at_zero: bool) -> None:
    sigmas = [*levels, 0.0] if ends_at_zero else levels
    run = list(SAMPLERS[sampler](DENOISE, start(0, SMALL) * sigmas[0], sigmas, drawn))
    assert [step.sigma for step in run] == sigmas[1:]
    assert all(step.x.isfinite().all() for step in run)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_run_of_no_steps_yields_nothing(sampler: str) -> None:
    assert list(SAMPLERS[sampler](DENOISE, start(0, SMALL), [3.0], drawn)) == []


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"unipc"} - TAKES_SCHEDULE))
def test_a_last_step_without_descent_leaves_the_latent_as_it_is(sampler: str) -> None:
    """DDIM without an offset and Karras to sigma_min end where their last step begins.

    UniPC's last call corrects the step before; the samplers of distilled models go to the clean estimate and back.
    """
    sigmas = [5.0, 2.0, 0.5, 0.5]
    run = list(SAMPLERS[sampler](DENOISE, start(0, SMALL) * 5, sigmas, drawn))
    assert torch.allclose(run[-1].x, run[-2].x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_precision_of_the_state_is_kept(sampler: str, dtype: torch.dtype) -> None:
    noise: Callable[[int], Tensor] = lambda draw: drawn(draw).to(dtype)  # noqa: E731
    for step in SAMPLERS[sampler](DENOISE, start(0, SMALL).to(dtype) * 8, [8.0, 3.0, 1.0, 0.0], noise):
        assert step.x.dtype == dtype


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_does_not_depend_on_its_neighbours(sampler: str) -> None:
    sigmas = [8.0, 3.0, 1.0, 0.2, 0.0]
    whole = list(SAMPLERS[sampler](DENOISE, start() * 8, sigmas, lambda draw: start(50 + draw)))[-1].x
    for image in range(SHAPE[0]):
        alone = slice(image, image + 1)
        found = list(
            SAMPLERS[sampler](DENOISE, start()[alone] * 8, sigmas, lambda draw, at=alone: start(50 + draw)[at])
        )
        assert torch.allclose(found[-1].x, whole[alone], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_every_preset_draws(name: str, steps: int) -> None:
    sampling = PRESETS[name]
    sigmas = sampling.sigmas(SD, steps)
    assert len(sigmas) == steps + 1
    denoise = denoiser(network, SD, "v_prediction", sampling.lookup(SD, sigmas))
    x = start(0, SMALL) * sampling.initial_scale(sigmas)
    run = list(sampling.run(denoise, x, sigmas, drawn, schedule=SD))
    assert len(run) == steps
    latent = sampling.leave(run[-1].x, run[-1].sigma)
    assert latent.isfinite().all()
    # one or two second-order steps over the whole range overshoot
    assert float(latent.abs().max()) < (10 if steps > 2 else 100)
