"""Ways to guide against the reference's code, the papers' equations in closed form, and what must not change."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.pipelines.deprecated.stable_diffusion_sag.pipeline_stable_diffusion_sag import gaussian_blur_2d
from torch import Tensor
from toys import drawn, gaussian, network, start

from sfumato.diffusion.denoiser import Denoise, Prediction, denoiser, network_output
from sfumato.diffusion.guidance import (
    Degrade,
    Projected,
    Thresholded,
    away,
    blurred,
    constant,
    halved,
    halves,
    once,
    plus_plus,
    received_mask,
    self_attention,
    steered,
    with_contrast,
)
from sfumato.diffusion.presets import PRESETS, comfyui
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.schedule import scaled_linear
from sfumato.diffusion.spacing import karras
from sfumato.diffusion.wrappers import combine, guide_doubled

SD = scaled_linear()
POSITIVE, NEGATIVE = gaussian(0.7, 0.4), gaussian(-0.5, 0.8)
SIGMAS = karras(SD, 6)
KERNEL = 1e-6  # the reference's blur has its weights in float32


def counted(denoise: Denoise) -> tuple[Denoise, list[float]]:
    calls: list[float] = []

    def call(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return denoise(x, sigma)

    return call, calls


def estimates(seed: int = 0) -> tuple[Tensor, Tensor]:
    return start(seed, (2, 4, 6, 5)), start(seed + 100, (2, 4, 6, 5))


def test_a_branch_that_two_ask_for_is_computed_once_at_each_place() -> None:
    branch, calls = counted(POSITIVE)
    shared = once(branch)
    x = start()
    assert shared(x, 2.0) is shared(x, 2.0)
    shared(x, 1.0)
    shared(x.clone(), 1.0)  # another latent, though an equal one
    assert calls == [2.0, 1.0, 1.0]


def test_both_halves_of_a_doubled_batch_are_one_call() -> None:
    def doubled(x: Tensor, sigma: float) -> Tensor:
        negative, positive = x.chunk(2)
        return torch.cat([NEGATIVE(negative, sigma), POSITIVE(positive, sigma)])

    both, calls = counted(doubled)
    unconditional, conditional = halves(both)
    x = start()
    guided = with_contrast(steered(conditional, unconditional, constant(6.0)), conditional, 0.7, "v_prediction")
    expected = guide_doubled(doubled, 6.0, rescale=0.7, prediction="v_prediction")
    assert torch.equal(guided(x, 2.0), expected(x, 2.0))
    assert calls == [2.0]


@pytest.mark.parametrize("momentum", [0.0, -0.5])
@pytest.mark.parametrize("threshold", [0.0, 4.0, 1000.0])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_projected_guidance_equals_that_of_diffusers(eta: float, threshold: float, momentum: float) -> None:
    """Over three steps, because of the momentum. Their scale in the paper's form is ours less 1."""
    ours, theirs = Projected(eta, threshold, momentum), MomentumBuffer(momentum) if momentum else None
    for step in range(3):
        conditional, unconditional = estimates(step)
        expected = normalized_guidance(
            conditional,
            unconditional,
            guidance_scale=6.5,
            momentum_buffer=theirs,
            eta=eta,
            norm_threshold=threshold,
            use_original_formulation=True,
        )
        assert torch.allclose(ours(conditional, unconditional, 7.5), expected, rtol=0, atol=1e-12)


def test_projected_guidance_that_projects_nothing_is_guidance() -> None:
    conditional, unconditional = estimates()
    found = Projected(1.0, 0.0, 0.0)(conditional, unconditional, 7.5)
    assert torch.allclose(found, combine(conditional, unconditional, 7.5), rtol=0, atol=1e-13)
    assert torch.equal(Projected(0.0, 3.0, -0.5)(conditional, unconditional, 1.0), conditional)


def test_what_projected_guidance_adds_is_orthogonal_and_no_longer_than_its_threshold() -> None:
    conditional, unconditional = estimates()
    added = (Projected(0.0, 4.0, 0.0)(conditional, unconditional, 7.5) - conditional) / 6.5
    assert torch.allclose((added * conditional).sum((1, 2, 3)), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert float(torch.linalg.vector_norm(added, dim=(1, 2, 3)).max()) <= 4.0


def documented_threshold(conditional: Tensor, unconditional: Tensor, scale: float, by: Thresholded) -> Tensor:
    """The extension's formulas for one picture [C, h, w], channel by channel or all channels as one."""
    target, mimic = (unconditional + (conditional - unconditional) * each for each in (scale, by.mimic_scale))
    result = torch.empty_like(target)
    deviations = [target - target.mean((1, 2), keepdim=True), mimic - mimic.mean((1, 2), keepdim=True)]
    groups = [[channel] for channel in range(len(target))] if by.separate_channels else [list(range(len(target)))]
    for group in groups:
        own, wanted = (each[group].flatten() for each in deviations)
        if by.measure == "std":
            spread, aim = own.std(), wanted.std()
        else:
            spread, aim = torch.quantile(own.abs(), by.percentile), wanted.abs().max()
        for channel in group:
            values, mean = target[channel], target[channel].mean()
            if by.start == "zero":
                scaled = values * (aim / spread)
            elif by.measure == "std":
                scaled = (values - mean) / spread * aim + mean
            else:
                limit = max(float(aim), float(spread))
                scaled = (values - mean).clamp(-limit, limit) / limit * aim + mean
            result[channel] = scaled * by.phi + values * (1 - by.phi)
    return result


@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("measure", ["ad", "std"])
@pytest.mark.parametrize("first", ["mean", "zero"])
@pytest.mark.parametrize(("percentile", "phi"), [(1.0, 1.0), (0.9, 1.0), (0.9, 0.6)])
def test_dynamic_thresholding_follows_the_documented_formulas(
    separate: bool, measure: str, first: str, percentile: float, phi: float
) -> None:
    by = Thresholded(3.0, percentile, separate, first, measure, phi)  # type: ignore[arg-type]
    conditional, unconditional = estimates()
    found = by(conditional, unconditional, 12.0)
    for picture in range(2):
        expected = documented_threshold(conditional[picture], unconditional[picture], 12.0, by)
        assert torch.allclose(found[picture], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("measure", ["ad", "std"])
def test_thresholding_to_its_own_scale_is_guidance(measure: str) -> None:
    conditional, unconditional = estimates()
    found = Thresholded(7.5, measure=measure)(conditional, unconditional, 7.5)  # type: ignore[arg-type]
    assert torch.allclose(found, combine(conditional, unconditional, 7.5), rtol=0, atol=1e-13)


def test_thresholded_values_spread_no_further_than_those_of_the_mimic() -> None:
    conditional, unconditional = estimates()
    found = Thresholded(3.0)(conditional, unconditional, 30.0).flatten(2)
    mimic = combine(conditional, unconditional, 3.0).flatten(2)
    reach = [(each - each.mean(2, keepdim=True)).abs().amax(2) for each in (found, mimic)]
    assert torch.allclose(reach[0], reach[1], rtol=0, atol=1e-12)


def cfg_pp_ddim(x: Tensor, sigmas: list[float], strength: float) -> list[Tensor]:
    """Chung et al. 2024, algorithm 2, as it is written: in the variance-preserving world, on predictions of noise."""
    found = []
    for sigma, sigma_next in pairwise(sigmas):
        alpha, alpha_next = 1 / (1 + sigma**2), 1 / (1 + sigma_next**2)
        z = x * math.sqrt(alpha)
        unconditional = (x - NEGATIVE(x, sigma)) / sigma
        noise = unconditional + strength * ((x - POSITIVE(x, sigma)) / sigma - unconditional)
        clean = (z - math.sqrt(1 - alpha) * noise) / math.sqrt(alpha)
        x = (math.sqrt(alpha_next) * clean + math.sqrt(1 - alpha_next) * unconditional) / math.sqrt(alpha_next)
        found.append(x)
    return found


@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0])
def test_euler_with_the_scale_of_cfg_pp_is_its_algorithm(strength: float) -> None:
    sampling = PRESETS["ddim_cfg_pp"]
    sigmas = sampling.sigmas(SD, 10)
    scale = sampling.guidance_scale(strength * 12.5, sigmas)
    assert scale is not None
    guided = steered(POSITIVE, NEGATIVE, scale)
    x = start() * math.sqrt(1 + sigmas[0] ** 2)
    steps = list(sampling.run(guided, x, sigmas, drawn(), schedule=SD))
    for step, expected in zip(steps, cfg_pp_ddim(x, sigmas, strength), strict=True):
        assert torch.allclose(step.x, expected, rtol=0, atol=1e-11)


def test_ancestral_cfg_pp_descends_with_the_unconditional_noise() -> None:
    """ComfyUI's `euler_ancestral_cfg_pp`: the guided estimate, the unconditional direction, then fresh noise."""
    sampling = comfyui("euler_ancestral_cfg_pp", "karras")
    scale = sampling.guidance_scale(0.8, SIGMAS)
    assert scale is not None
    x = start() * SIGMAS[0]
    steps = list(sampling.run(steered(POSITIVE, NEGATIVE, scale), x, SIGMAS, drawn(), schedule=SD))
    noise = drawn()
    for index, (sigma, sigma_next) in enumerate(pairwise(SIGMAS)):
        up = min(sigma_next, math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2))
        down = math.sqrt(sigma_next**2 - up**2)
        slope = (x - NEGATIVE(x, sigma)) / sigma
        x = combine(POSITIVE(x, sigma), NEGATIVE(x, sigma), 0.8) + slope * down
        if sigma_next > 0:
            x = x + noise(index) * up
        assert torch.allclose(steps[index].x, x, rtol=0, atol=1e-11)


def cfg_pp_by_hand(name: str, x: Tensor, lam: float) -> list[Tensor]:
    """The three samplers as ComfyUI and CFG++'s authors state them, in t = -log sigma."""
    found: list[Tensor] = []
    noise = drawn()
    old: Tensor | None = None
    for index, (sigma, sigma_next) in enumerate(pairwise(SIGMAS)):
        u = NEGATIVE(x, sigma)
        g = u + lam * (POSITIVE(x, sigma) - u)
        euler = g + (x - u) / sigma * sigma_next
        if name == "dpmpp_2s_ancestral_cfg_pp":
            up = min(sigma_next, math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2))
            down = math.sqrt(sigma_next**2 - up**2)
            if down == 0:
                x = euler
            else:
                h = math.log(sigma) - math.log(down)
                halfway = math.exp(-h / 2) * (x + g - u) - math.expm1(-h / 2) * g
                level = math.exp(math.log(sigma) - h / 2)
                there = NEGATIVE(halfway, level)
                second = there + lam * (POSITIVE(halfway, level) - there)
                x = math.exp(-h) * (x + g - u) - math.expm1(-h) * second
            if sigma_next > 0:
                x = x + noise(index) * up
        elif old is None or sigma_next == 0:
            x = euler
        else:
            h, last = math.log(sigma / sigma_next), math.log(SIGMAS[index - 1] / sigma)
            r = last / h
            if name == "dpmpp_2m_cfg_pp":
                x = g - math.exp(-h) * u - math.expm1(-h) / (2 * r) * (g - old) + math.exp(-h) * x
            else:
                phi1 = math.expm1(-h) / -h
                phi2 = (phi1 - 1) / -h
                first, second_weight = phi1 + phi2 / r, -phi2 / r
                x = math.exp(-h) * (x + g - u) + h * (first * u + second_weight * old)
        old = u
        found.append(x)
    return found


CFG_PP = {
    "dpmpp_2m_cfg_pp": ("dpmpp_2m", {}),
    "dpmpp_2s_ancestral_cfg_pp": ("dpmpp_2s_ancestral", {}),
    "res_multistep_cfg_pp": ("dpmpp_multistep", {"solver": "heun"}),
}


@pytest.mark.parametrize("name", CFG_PP)
@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_cfg_pp_of_second_order_is_what_its_authors_and_comfyui_state(name: str, lam: float) -> None:
    sampling = comfyui(name, "karras")
    scale = sampling.guidance_scale(lam, SIGMAS)
    assert scale is not None and scale(3.0) == lam
    x = start() * SIGMAS[0]
    guided = steered(POSITIVE, NEGATIVE, scale)
    steps = list(sampling.run(guided, x, SIGMAS, drawn(), schedule=SD, unconditional=NEGATIVE))
    for step, expected in zip(steps, cfg_pp_by_hand(name, x, lam), strict=True):
        assert torch.allclose(step.x, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", CFG_PP)
def test_cfg_pp_without_guidance_is_the_plain_sampler(name: str) -> None:
    plain, options = CFG_PP[name]
    x = start() * SIGMAS[0]
    for unconditional in (None, POSITIVE):
        found = SAMPLERS[name](POSITIVE, x, SIGMAS, drawn(), unconditional=unconditional)
        expected = SAMPLERS[plain](POSITIVE, x, SIGMAS, drawn(), **options)
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one.x, other.x, rtol=0, atol=1e-11)


def test_cfg_pp_guides_more_the_shorter_the_step_and_plainly_at_the_last() -> None:
    scale = plus_plus(0.6, [10.0, 5.0, 4.0, 0.0], lambda level, lower: lower)
    assert scale(10.0) == pytest.approx(0.6 / 0.5)
    assert scale(5.0) == pytest.approx(0.6 / 0.2)
    assert scale(4.0) == pytest.approx(0.6)
    assert scale(4.5) == pytest.approx(0.6 / (1 - 4.0 / 4.5))  # between levels: as far as the next lower one
    assert PRESETS["ddim"].guidance_scale(7.5, SIGMAS) is None


def test_away_from_itself_is_where_it_was_and_a_scale_of_none_asks_nobody() -> None:
    x = start()
    asked, calls = counted(NEGATIVE)
    assert torch.equal(away(POSITIVE, POSITIVE, POSITIVE, constant(3.0))(x, 2.0), POSITIVE(x, 2.0))
    assert torch.equal(away(POSITIVE, POSITIVE, asked, constant(0.0))(x, 2.0), POSITIVE(x, 2.0))
    assert calls == []
    found = away(POSITIVE, POSITIVE, NEGATIVE, lambda sigma: sigma)(x, 2.0)
    assert torch.allclose(found, POSITIVE(x, 2.0) * 3 - NEGATIVE(x, 2.0) * 2, rtol=0, atol=1e-14)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_self_attention_guidance_is_the_papers_equation_on_the_networks_output(prediction: Prediction) -> None:
    branch = denoiser(network, SD, prediction)
    mask = (start(9, (2, 1, 6, 5)) > 0).double()
    x, sigma = start(0, (2, 4, 6, 5)) * 3, 3.0
    clean = branch(x, sigma)
    degraded = mask * gaussian_blur_2d(clean, 9, 1.3) + (1 - mask) * clean
    noised = degraded + (x - clean)  # the same noise
    first = network_output(prediction, x, clean, sigma)
    second = network_output(prediction, noised, branch(noised, sigma), sigma)
    guided = gaussian(0.3, 0.5)
    expected = network_output(prediction, x, guided(x, sigma), sigma) + 0.75 * (first - second)
    found = self_attention(guided, branch, branch, Degrade(lambda latent: mask, 1.3), 0.75, prediction)(x, sigma)
    assert torch.allclose(network_output(prediction, x, found, sigma), expected, rtol=0, atol=KERNEL)


def test_blur_equals_diffusers_and_goes_around_where_it_is_told() -> None:
    x = start(0, (2, 4, 7, 9))
    assert torch.allclose(blurred(x, 1.0), gaussian_blur_2d(x, 9, 1.0), rtol=0, atol=KERNEL)
    around = blurred(x, 1.0, (True, True))
    assert torch.allclose(blurred(x.roll((2, 3), (2, 3)), 1.0, (True, True)), around.roll((2, 3), (2, 3)), atol=1e-13)


def test_a_mask_of_attention_is_where_more_than_a_share_arrives() -> None:
    received = torch.tensor([[0.5, 1.5, 2.0, 0.0, 1.0, 1.1]])
    latent = torch.zeros(1, 4, 4, 6)
    found = received_mask(received, latent, (2, 3))
    assert found.shape == (1, 1, 4, 6)
    assert torch.equal(found[0, 0, ::2, ::2], torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]))
    assert halved((9, 64), 3) == (2, 8)


FORMS: dict[str, Callable[[], Denoise]] = {
    "apg": lambda: steered(POSITIVE, NEGATIVE, constant(5.0), together=Projected(0.0, 3.0, -0.5)),
    "thresholded": lambda: steered(POSITIVE, NEGATIVE, constant(9.0), together=Thresholded(4.0)),
    "perturbed": lambda: away(POSITIVE, POSITIVE, NEGATIVE, constant(0.5)),
    "cfg++": lambda: steered(POSITIVE, NEGATIVE, plus_plus(0.6, SIGMAS, lambda level, lower: lower)),
    "contrast": lambda: with_contrast(steered(POSITIVE, NEGATIVE, constant(5.0)), POSITIVE, 0.7, "epsilon"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_form_runs_in_every_sampler_and_twice_alike(sampler: str, form: str) -> None:
    runs = [
        list(
            SAMPLERS[sampler](
                FORMS[form](), start(3, (2, 4, 6, 5)) * SIGMAS[0], SIGMAS, lambda i: start(i, (2, 4, 6, 5))
            )
        )
        for _ in range(2)
    ]
    assert torch.isfinite(runs[0][-1].x).all()
    assert torch.equal(runs[0][-1].x, runs[1][-1].x)
