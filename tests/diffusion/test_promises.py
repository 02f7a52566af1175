"""What is promised of every sampler and every way to guide: limits that are the plain case, batches, and halves."""

import pytest
import torch
from test_guidance import FORMS, NEGATIVE, POSITIVE, SIGMAS
from toys import start

from sfumato.diffusion.denoiser import Denoise
from sfumato.diffusion.guidance import Projected, constant, once, steered
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.wrappers import guide, handed_over, inpaint, interval

SHAPE = (2, 4, 6, 5)
SUMS = ("lcm", "lms", "plms")  # whose last step is a sum, or blends the latent in
REMEMBER = {"lms", "plms", "deis", "unipc", "dpm_multistep", "dpmpp_multistep", "dpmpp_singlestep"}
REMEMBER |= {"dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde"}  # earlier steps, in a run
REMEMBER |= {"dpmpp_2m_cfg_pp", "res_multistep_cfg_pp"}
LAST_IS_OTHER = {"tcd"}  # a run's last step adds no noise


def drawn(draw: int) -> torch.Tensor:
    return start(100 + draw, SHAPE)


def end(sampler: str, denoise: Denoise, x: torch.Tensor) -> torch.Tensor:
    return list(SAMPLERS[sampler](denoise, x, SIGMAS, drawn))[-1].x


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guidance_of_one_is_the_conditional_branch_alone(sampler: str) -> None:
    x = start(3, SHAPE) * SIGMAS[0]
    alone = end(sampler, POSITIVE, x)
    assert torch.equal(end(sampler, guide(POSITIVE, NEGATIVE, 1.0), x), alone)
    projected = steered(POSITIVE, NEGATIVE, constant(1.0), together=Projected(0.0, 2.0, -0.5))
    assert torch.equal(end(sampler, projected, x), alone)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guidance_of_nothing_in_no_interval_is_the_conditional_branch_alone(sampler: str) -> None:
    x = start(3, SHAPE) * SIGMAS[0]
    for form in FORMS.values():
        assert torch.equal(end(sampler, interval(form(), POSITIVE, 1e9, 1e10), x), end(sampler, POSITIVE, x))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_mask_of_ones_changes_nothing_and_one_of_zeros_keeps_all(sampler: str) -> None:
    known, noise = start(5, SHAPE), start(6, SHAPE)
    x = noise * SIGMAS[0]
    ones, zeros = torch.ones(1, 1, 6, 5, dtype=x.dtype), torch.zeros(1, 1, 6, 5, dtype=x.dtype)
    assert torch.equal(end(sampler, inpaint(POSITIVE, known, ones, noise), x), end(sampler, POSITIVE, x))
    kept = end(sampler, inpaint(POSITIVE, known, zeros, noise), x)
    assert torch.allclose(kept, known, rtol=0, atol=1e-13)
    assert sampler in SUMS or torch.equal(kept, known)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_hand_over_to_the_same_denoiser_is_none(sampler: str) -> None:
    x = start(3, SHAPE) * SIGMAS[0]
    found = end(sampler, handed_over(POSITIVE, POSITIVE, lambda sigma: sigma < SIGMAS[3]), x)
    assert torch.equal(found, end(sampler, POSITIVE, x))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_remembered_of_a_branch_changes_nothing(sampler: str) -> None:
    x = start(3, SHAPE) * SIGMAS[0]
    assert torch.equal(end(sampler, once(POSITIVE), x), end(sampler, POSITIVE, x))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_of_a_batch_is_the_picture_alone(sampler: str, form: str) -> None:
    x = start(3, SHAPE) * SIGMAS[0]
    together = end(sampler, FORMS[form](), x)
    for picture in range(2):
        steps = SAMPLERS[sampler](
            FORMS[form](), x[picture : picture + 1], SIGMAS, lambda draw, picture=picture: drawn(draw)[[picture]]
        )
        alone = list(steps)[-1].x
        assert torch.allclose(together[picture : picture + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - REMEMBER - LAST_IS_OTHER))
def test_two_halves_of_a_run_are_the_whole_run(sampler: str) -> None:
    """Of samplers that remember nothing between two steps; the draws of noise go on where they were."""
    x = start(3, SHAPE) * SIGMAS[0]
    whole = list(SAMPLERS[sampler](POSITIVE, x, SIGMAS, drawn))
    numbers: list[int] = []

    def noted(draw: int) -> torch.Tensor:
        numbers.append(draw)
        return drawn(draw)

    first = list(SAMPLERS[sampler](POSITIVE, x, SIGMAS[:4], noted))
    used = max(numbers, default=-1) + 1
    second = list(SAMPLERS[sampler](POSITIVE, first[-1].x, SIGMAS[3:], lambda draw: drawn(draw + used)))
    for step, other in zip([*first, *second], whole, strict=True):
        assert torch.equal(step.x, other.x)


def test_every_sampler_is_said_to_remember_or_is_halved() -> None:
    assert set(SAMPLERS) >= REMEMBER | LAST_IS_OTHER
