"""Every scheduler class of diffusers, step by step, from its own config: levels, timesteps and latents."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor
from toys import SHAPE, network, start

from sfumato.diffusion.denoiser import Network, denoiser
from sfumato.diffusion.presets import from_scheduler_config
from sfumato.diffusion.schedule import NoiseSchedule

STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}
SPACED = [{"timestep_spacing": name} for name in ("leading", "trailing", "linspace")]
SIGMAS = [{f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")]
BOUNDED = [{"timestep_spacing": "leading", "use_karras_sigmas": True}, *SPACED, *SIGMAS]

# DDIM and PNDM with trailing or linspace spacing step to t - 1000 // n there, so n must divide 1000 (trap 6)
CASES: list[tuple[str, dict[str, Any], int]] = [
    *(("DDIMScheduler", extra, 20) for extra in ({}, {"set_alpha_to_one": True}, {"timestep_spacing": "trailing"})),
    ("DDIMScheduler", {"steps_offset": 0}, 10),
    ("DDIMScheduler", {}, 7),
    ("DDIMScheduler", {}, 1),
    *(("DDPMScheduler", extra, 20) for extra in ({}, {"timestep_spacing": "trailing"})),
    ("DDPMScheduler", {"variance_type": "fixed_small_log"}, 7),
    *(("PNDMScheduler", {}, steps) for steps in (1, 2, 3, 20, 50)),
    *(("EulerDiscreteScheduler", extra, 20) for extra in BOUNDED),
    ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}, 7),
    ("EulerDiscreteScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, 20),
    *(("EulerAncestralDiscreteScheduler", extra, 20) for extra in SPACED),
    ("EulerAncestralDiscreteScheduler", {"use_karras_sigmas": True}, 7),
    *(("HeunDiscreteScheduler", extra, 12) for extra in BOUNDED),
    *(("LMSDiscreteScheduler", extra, 20) for extra in BOUNDED),
    *(("KDPM2DiscreteScheduler", extra, 12) for extra in BOUNDED),
    *(("KDPM2AncestralDiscreteScheduler", extra, 12) for extra in BOUNDED),
    *(("DPMSolverSDEScheduler", extra, 12) for extra in BOUNDED),
    *(("DPMSolverMultistepScheduler", extra, 20) for extra in [*SPACED, *SIGMAS]),
    *(
        ("DPMSolverMultistepScheduler", {"solver_order": order, "solver_type": solver, "algorithm_type": kind}, steps)
        for order in (1, 2, 3)
        for solver in ("midpoint", "heun")
        for kind in ("dpmsolver++", "sde-dpmsolver++")
        for steps in (8, 16)
        if not (order == 3 and kind == "sde-dpmsolver++")
    ),
    *(
        (
            "DPMSolverMultistepScheduler",
            {"solver_order": order, "solver_type": solver, "algorithm_type": kind, "final_sigmas_type": "sigma_min"},
            9,
        )
        for order in (1, 2, 3)
        for solver in ("midpoint", "heun")
        for kind in ("dpmsolver", "sde-dpmsolver", "dpmsolver++")
        if not (order == 3 and kind == "sde-dpmsolver")
    ),
    ("DPMSolverMultistepScheduler", {"euler_at_final": True, "final_sigmas_type": "sigma_min"}, 20),
    ("DPMSolverMultistepScheduler", {"lower_order_final": False, "final_sigmas_type": "sigma_min"}, 7),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}, 10),
    ("DPMSolverMultistepScheduler", {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}, 10),
    ("DPMSolverMultistepScheduler", {"rescale_betas_zero_snr": True}, 20),
    ("DPMSolverMultistepScheduler", {}, 1),
    *(
        ("DPMSolverSinglestepScheduler", {"solver_order": order, "solver_type": solver, "algorithm_type": kind}, steps)
        for order in (1, 2, 3)
        for solver in ("midpoint", "heun")
        for kind in ("dpmsolver++", "sde-dpmsolver++")
        for steps in (6, 7, 8)
        if not (order == 3 and kind == "sde-dpmsolver++" and solver == "heun")
    ),
    ("DPMSolverSinglestepScheduler", {"solver_order": 2, "final_sigmas_type": "sigma_min"}, 8),
    ("DPMSolverSinglestepScheduler", {"solver_order": 3, "final_sigmas_type": "sigma_min"}, 9),
    (
        "DPMSolverSinglestepScheduler",
        {"solver_order": 3, "final_sigmas_type": "sigma_min", "use_karras_sigmas": True},
        9,
    ),
    *(("UniPCMultistepScheduler", extra, 20) for extra in [*SPACED, *SIGMAS]),
    *(
        ("UniPCMultistepScheduler", {"solver_order": order, "solver_type": variant, "final_sigmas_type": end}, 10)
        for order in (1, 2, 3)
        for variant in ("bh1", "bh2")
        for end in ("zero", "sigma_min")
        if not (variant == "bh1" and end == "zero")  # NaN in diffusers: 0 times infinity in the last step
    ),
    ("UniPCMultistepScheduler", {"disable_corrector": [0, 1, 3], "solver_order": 3}, 10),
    ("UniPCMultistepScheduler", {"lower_order_final": False, "final_sigmas_type": "sigma_min"}, 10),
    ("UniPCMultistepScheduler", {}, 1),
    *(("DEISMultistepScheduler", extra, 20) for extra in [*SPACED, *SIGMAS]),
    *(("DEISMultistepScheduler", {"solver_order": order}, steps) for order in (1, 2, 3) for steps in (1, 8, 16)),
    *(("LCMScheduler", {}, steps) for steps in (1, 4, 7)),
    *(("TCDScheduler", {}, steps) for steps in (1, 4, 7)),
]


def label(case: tuple[str, dict[str, Any], int]) -> str:
    name, extra, steps = case
    return "-".join([name.removesuffix("Scheduler"), *(f"{value}" for value in extra.values()), str(steps)])


@pytest.fixture(params=CASES, ids=label)
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any], int]:
    return request.param


def reference(name: str, config: dict[str, Any], steps: int) -> Any:
    """The scheduler with its tables in float64, so that its arithmetic is in float64 wherever it lets it be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # dpmsolver and sde-dpmsolver are deprecated there
        scheduler = getattr(diffusers, name).from_config(config)
    scheduler.set_timesteps(steps)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    if name in ("DDIMScheduler", "PNDMScheduler", "LCMScheduler", "TCDScheduler"):
        scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    else:
        for table in ("sigmas", "sigmas_interpol", "sigmas_up", "sigmas_down"):
            if isinstance(getattr(scheduler, table, None), Tensor):
                setattr(scheduler, table, getattr(scheduler, table).double())
    return scheduler


def table(scheduler: Any) -> NoiseSchedule:
    """The scheduler's own float32 table, as exact float64 values."""
    alphas_cumprod = scheduler.alphas_cumprod.double()
    return NoiseSchedule(tuple(((1 - alphas_cumprod) / alphas_cumprod).sqrt().tolist()))


def timeless(x: Tensor, timestep: Tensor) -> Tensor:
    """For ancestral DPM2 with Karras sigmas, where one level has two timesteps in diffusers, up to 0.5 apart."""
    return network(x, torch.full_like(timestep, 500.0))


def levels(scheduler: Any, name: str) -> list[float] | None:
    """The scheduler's levels, or None where it has only timesteps."""
    if name in ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LCMScheduler", "TCDScheduler"):
        return None
    sigmas = [float(sigma) for sigma in scheduler.sigmas]
    if scheduler.order == 2:  # those list the levels of second-order steps twice
        sigmas = [sigmas[0], *sigmas[1::2]][: scheduler.num_inference_steps + 1]
    return sigmas


def brownian(seed: int) -> Any:
    """DPM-Solver-SDE's noise for (sigma, middle) and then (sigma, sigma_next), from independent increments."""
    generator = torch.Generator().manual_seed(seed)
    last: list[Tensor] = []
    middles: list[float] = []

    def draw(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        fresh = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        if not last:
            last.append(fresh)
            middles.append(float(sigma_next))
            return fresh
        part = (float(sigma) - middles.pop()) / (float(sigma) - float(sigma_next))
        return last.pop() * math.sqrt(part) + fresh * math.sqrt(1 - part)

    return draw


def trajectory(scheduler: Any, name: str, x: Tensor, network: Network) -> Iterator[Tensor]:
    """diffusers' own loop; yields the latent after every whole step, in its own scale."""
    generator = torch.Generator().manual_seed(1)
    takes_generator = name in (
        "DDPMScheduler",
        "EulerAncestralDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "DPMSolverSinglestepScheduler",
        "LCMScheduler",
        "TCDScheduler",
    )
    if name == "DPMSolverSDEScheduler":
        scheduler.noise_sampler = brownian(1)
    for call, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, t)
        output = network(scaled.double(), t.reshape(1).float())
        options: dict[str, Any] = {"generator": generator} if takes_generator else {}
        if name == "DPMSolverMultistepScheduler":  # it would draw in float32, which is another stream
            options["variance_noise"] = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        x = scheduler.step(output, t, x, **options).prev_sample.double()
        if name == "PNDMScheduler" and call == 0 and len(scheduler.timesteps) > 1:
            continue  # the first call of two that make its first step
        if scheduler.order == 1 or scheduler.state_in_first_order or call == len(scheduler.timesteps) - 1:
            yield x


def test_levels_equal_diffusers(case: tuple[str, dict[str, Any], int]) -> None:
    name, extra, steps = case
    config = STABLE_DIFFUSION | extra | {"_class_name": name}
    scheduler = reference(name, config, steps)
    expected = levels(scheduler, name)
    found = from_scheduler_config(config).sigmas(table(scheduler), steps)
    assert len(found) == steps + 1
    if expected is None:
        timesteps = [float(t) for t in dict.fromkeys(scheduler.timesteps.tolist())]
        expected = [table(scheduler).sigmas[int(t)] for t in timesteps]
        assert found[:-1] == expected
    else:
        assert found == pytest.approx(expected, rel=1e-6, abs=0)  # the reference holds them in float32


def test_timesteps_equal_diffusers(case: tuple[str, dict[str, Any], int]) -> None:
    name, extra, steps = case
    config = STABLE_DIFFUSION | extra | {"_class_name": name}
    scheduler = reference(name, config, steps)
    sampling = from_scheduler_config(config)
    sigmas = sampling.sigmas(table(scheduler), steps)
    lookup = sampling.lookup(table(scheduler), sigmas)
    expected = scheduler.timesteps.tolist()
    if scheduler.order == 2:
        expected = [expected[0], *expected[2::2]]
    elif name == "PNDMScheduler" and steps > 1:
        expected = [expected[0], *expected[2:]]
    # fractional timesteps are float32 there; integers are equal
    assert [lookup(sigma) for sigma in sigmas[:-1]] == pytest.approx([float(t) for t in expected], rel=0, abs=2e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_every_step_equals_diffusers(case: tuple[str, dict[str, Any], int], prediction: str) -> None:
    name, extra, steps = case
    config = STABLE_DIFFUSION | extra | {"_class_name": name, "prediction_type": prediction}
    scheduler = reference(name, config, steps)
    schedule = table(scheduler)
    sampling = from_scheduler_config(config)
    ours = sampling.sigmas(schedule, steps)
    sigmas = levels(scheduler, name) or ours  # the reference's own, where it rounds them to float32
    assert sampling.prediction == prediction

    generator = torch.Generator().manual_seed(1)
    noise = lambda _: torch.randn(SHAPE, generator=generator, dtype=torch.float64)  # noqa: E731
    timesteps = dict(zip(sigmas, scheduler_timesteps(scheduler, name), strict=False))
    lookup = sampling.lookup(schedule, ours)
    toy = timeless if name == "KDPM2AncestralDiscreteScheduler" and "use_karras_sigmas" in extra else network
    denoise = denoiser(toy, schedule, prediction, lambda sigma: timesteps.get(sigma, lookup(sigma)))

    x = start() * sampling.initial_scale(sigmas)
    theirs = start() * float(scheduler.init_noise_sigma)
    in_vp_scale = float(scheduler.init_noise_sigma) == 1.0
    found = list(sampling.run(denoise, x, sigmas, noise, schedule=schedule))
    expected = list(trajectory(scheduler, name, theirs, toy))
    assert len(found) == len(expected) == steps
    for step, latent in zip(found, expected, strict=True):
        x = sampling.leave(step.x, step.sigma) if in_vp_scale else step.x
        # 1e-6 of the latent's size: Euler and DPM-Solver cast their state to float32 in every step
        assert float((x - latent).abs().max()) <= 1e-6 * max(1.0, float(latent.abs().max())), step.index
    handed_over = sampling.leave(found[-1].x, found[-1].sigma)
    assert float((handed_over - expected[-1]).abs().max()) <= 1e-6 * max(1.0, float(expected[-1].abs().max()))


def scheduler_timesteps(scheduler: Any, name: str) -> list[float]:
    """One timestep for each level, where the reference rounds its levels to float32."""
    timesteps = [float(t) for t in scheduler.timesteps]
    if scheduler.order == 2:
        return [timesteps[0], *timesteps[2::2]]
    return [timesteps[0], *timesteps[2:]] if name == "PNDMScheduler" and len(timesteps) > 1 else timesteps
