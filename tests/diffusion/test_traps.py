"""The traps of numbers, each by its name: where the levels, the scale or the timestep are easily off by a little.

A loose tolerance hides every one of them, so each is checked where it shows, against what it would be without care.
"""

import math
from functools import partial
from typing import Any

import diffusers
import pytest
import torch
from toys import gaussian, silent, start

from sfumato.diffusion.denoiser import denoiser
from sfumato.diffusion.presets import PRESETS, comfyui, from_scheduler_config, preset
from sfumato.diffusion.schedule import NoiseSchedule, scaled_linear
from sfumato.diffusion.spacing import karras, tail

SD = scaled_linear()
SD_CONFIG: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}


@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_trap_1_entering_ddim_pndm_and_dpmpp_keeps_unit_variance(name: str, spacing: str) -> None:
    sampling = from_scheduler_config({**SD_CONFIG, "_class_name": name, "timestep_spacing": spacing})
    levels = sampling.sigmas(SD, 20)
    assert sampling.initial_scale(levels) == math.sqrt(1 + levels[0] ** 2)


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_trap_1_entering_diffusers_euler_depends_on_its_spacing(name: str, spacing: str) -> None:
    config = {**SD_CONFIG, "_class_name": name, "timestep_spacing": spacing}
    sampling = from_scheduler_config(config)
    scheduler = getattr(diffusers, name).from_config(config)
    scheduler.set_timesteps(20)
    found = sampling.initial_scale(sampling.sigmas(SD, 20))
    assert found == pytest.approx(float(scheduler.init_noise_sigma), rel=1e-5)
    levels = sampling.sigmas(SD, 20)
    assert found == (math.sqrt(1 + levels[0] ** 2) if spacing == "leading" else levels[0])


@pytest.mark.parametrize("name", ["ddim", "pndm", "DDIMScheduler", "PNDMScheduler"])
def test_trap_2_leaving_divides_by_the_level_that_is_left(name: str) -> None:
    """A picture's latent comes out with unit variance; undivided it would be larger by 0.0425 %."""
    sampling = preset(name)
    levels = sampling.sigmas(SD, 50)
    assert levels[-1] == SD.sigmas[0] == pytest.approx(0.02917, abs=1e-5)
    x = start()
    factor = float((sampling.leave(x, levels[-1]) / x).mean())
    assert factor == pytest.approx(0.99957, abs=1e-5)
    assert sampling.leave(x, 0.0).equal(x)


def test_trap_3_timestep_look_up_is_exact_on_the_levels_of_a_run() -> None:
    for name in ("ddim", "pndm", "dpmpp_2m", "unipc", "lcm", "tcd"):
        levels = PRESETS[name].sigmas(SD, 20 if name != "lcm" else 4)
        lookup = PRESETS[name].lookup(SD, levels)
        if name != "dpmpp_2m":  # whose levels lie between entries
            assert all(lookup(level) == float(SD.sigmas.index(level)) for level in levels if level > 0)
    assert PRESETS["ddim"].lookup(SD, [SD.sigmas[981]])(SD.sigmas[981]) == 981.0


def test_trap_3_each_tool_rounds_karras_timesteps_its_own_way() -> None:
    rounded = from_scheduler_config(
        {**SD_CONFIG, "_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}
    )
    exact = from_scheduler_config({**SD_CONFIG, "_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True})
    nearest = comfyui("dpmpp_2m", "karras")
    level = karras(SD, 10)[4]
    between = SD.timestep(level)
    assert between != int(between)
    assert rounded.lookup(SD, karras(SD, 10))(level) == round(between)
    assert exact.lookup(SD, karras(SD, 10))(level) == between
    assert nearest.lookup(SD, karras(SD, 10))(level) == SD.nearest(level)


def test_trap_4_sigma_table_is_built_in_float64_and_a_references_own_can_be_passed_in() -> None:
    scheduler = diffusers.DDIMScheduler.from_config(SD_CONFIG)
    alphas_cumprod = scheduler.alphas_cumprod.double()
    theirs = NoiseSchedule(tuple(((1 - alphas_cumprod) / alphas_cumprod).sqrt().tolist()))
    exact = 1.0
    for t in range(1000):  # the product of the definition, in float64
        root = 0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * t / 999
        exact *= 1 - root**2
        assert SD.alphas_cumprod[t] == pytest.approx(exact, rel=1e-12)
    gaps = [abs(ours / other - 1) for ours, other in zip(SD.sigmas, theirs.sigmas, strict=True)]
    assert 5e-6 < max(gaps) < 5e-5  # what float32 costs, and why parity needs the reference's table
    assert max(gaps) == max(gaps[:10])


def test_trap_5_pndm_that_starts_late_is_not_off_by_a_level() -> None:
    """diffusers cuts its doubled timestep list, doubles no entry of the rest, and asks one level too low from then on.

    All data in one point: the noise that is left is the level that was reached.
    """
    config = {**SD_CONFIG, "_class_name": "PNDMScheduler"}
    sampling = from_scheduler_config(config)
    late = tail(partial(sampling.sigmas, SD), 20, 0.5)
    assert len(late) == 11
    run = sampling.run(lambda x, _: torch.full_like(x, 0.7), 0.7 + start() * late[0], late, silent, schedule=SD)
    for step, level in zip(run, late[1:], strict=True):
        assert torch.allclose(step.x - 0.7, start() * level, rtol=0, atol=1e-12)

    scheduler = diffusers.PNDMScheduler.from_config(config)
    scheduler.set_timesteps(20)
    timesteps = scheduler.timesteps[10:]  # what its img2img pipeline runs at strength 0.5
    first = SD.sigmas[int(timesteps[0])]
    latent = (0.7 + start() * first) / math.sqrt(1 + first**2)
    for t in timesteps:
        sigma = SD.sigmas[int(t)]
        epsilon = (latent * math.sqrt(1 + sigma**2) - 0.7) / sigma
        latent = scheduler.step(epsilon, t, latent).prev_sample
    left = float(((latent * math.sqrt(1 + late[-1] ** 2) - 0.7) / start()).abs().mean())
    assert left > 1.1 * late[-1]


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_trap_6_ddim_steps_to_the_next_level_when_steps_do_not_divide_the_timesteps(spacing: str) -> None:
    """diffusers steps from t to t - 1000 // n there, whatever the next timestep is."""
    config = {**SD_CONFIG, "_class_name": "DDIMScheduler", "timestep_spacing": spacing}
    sampling = from_scheduler_config(config)
    levels = sampling.sigmas(SD, 7)
    point = 0.7  # all data in one point: the noise that is left is exactly the level that was reached
    run = sampling.run(lambda x, _: torch.full_like(x, point), point + start() * levels[0], levels, silent, schedule=SD)
    for step, level in zip(run, levels[1:], strict=True):
        assert torch.allclose(step.x - point, start() * level, rtol=0, atol=1e-12)
    scheduler = diffusers.DDIMScheduler.from_config(config)
    scheduler.set_timesteps(7)
    steps_to = [int(t) - 1000 // 7 for t in scheduler.timesteps[:-1]]
    assert steps_to != [int(t) for t in scheduler.timesteps[1:]]


@pytest.mark.parametrize("steps", [20, 25, 30, 50])
@pytest.mark.parametrize("strength", [0.1, 0.3, 0.5, 0.75, 0.8, 1.0])
def test_trap_7_img2img_runs_the_last_int_of_steps_times_strength(steps: int, strength: float) -> None:
    """As diffusers; ComfyUI lays int(steps / strength) levels and runs `steps`, A1111 runs one step more."""
    config = {**SD_CONFIG, "_class_name": "DDIMScheduler"}
    scheduler = diffusers.DDIMScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    begin = max(steps - min(int(steps * strength), steps), 0)  # StableDiffusionImg2ImgPipeline.get_timesteps
    expected = [SD.sigmas[int(t)] for t in scheduler.timesteps[begin:]]
    sampling = from_scheduler_config(config)
    assert tail(partial(sampling.sigmas, SD), steps, strength)[:-1] == expected
    laid = int(steps / strength)
    assert tail(partial(sampling.sigmas, SD), steps, strength, "whole") == sampling.sigmas(SD, laid)[-steps - 1 :]
    more = int(min(strength, 0.999) * steps) + 1
    assert tail(partial(sampling.sigmas, SD), steps, strength, "a1111") == sampling.sigmas(SD, steps)[-more - 1 :]


def test_trap_8_steps_offset_shifts_every_leading_timestep() -> None:
    for offset in (0, 1):
        config = {**SD_CONFIG, "_class_name": "DDIMScheduler", "steps_offset": offset}
        levels = from_scheduler_config(config).sigmas(SD, 50)
        assert levels[:-1] == [SD.sigmas[offset + 20 * index] for index in range(49, -1, -1)]


def test_trap_8_clean_latents_are_not_clipped() -> None:
    """Latents reach well beyond [-1, 1], and DDIM's default of clipping would cut them."""
    levels = PRESETS["ddim"].sigmas(SD, 10)
    run = PRESETS["ddim"].run(lambda x, _: torch.full_like(x, 5.0), start() * levels[0], levels, silent, schedule=SD)
    assert float(list(run)[-1].denoised.mean()) == 5.0


def test_trap_8_dpmpp_makes_its_last_step_to_zero_of_first_order() -> None:
    levels = PRESETS["dpmpp_2m_karras"].sigmas(SD, 20)
    assert levels[-1] == 0.0
    denoise = gaussian(0.3, 0.8)
    run = list(PRESETS["dpmpp_2m_karras"].run(denoise, start() * levels[0], levels, silent, schedule=SD))
    assert torch.equal(run[-1].x, run[-1].denoised)


def test_trap_15_zero_terminal_snr_starts_at_a_finite_level() -> None:
    config = {**SD_CONFIG, "_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}
    schedule = scaled_linear(zero_terminal_snr=True)
    levels = from_scheduler_config(config).sigmas(schedule, 20)
    assert levels[0] == pytest.approx(math.sqrt(2**24 - 1), rel=1e-12)
    seen: list[torch.Tensor] = []

    def velocity(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x * 0.1

    sampling = from_scheduler_config(config)
    denoise = denoiser(velocity, schedule, "v_prediction", sampling.lookup(schedule, levels))
    x = (start() * sampling.initial_scale(levels)).float()
    run = list(sampling.run(denoise, x, levels, silent, schedule=schedule))
    assert torch.allclose(seen[0], start().float(), rtol=1e-6)  # the network sees pure noise
    assert all(step.x.isfinite().all() for step in run)
