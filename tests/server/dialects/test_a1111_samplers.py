"""A1111's names of samplers and schedule types. The tables are those of its version 1.10's API."""

import pytest

from sfumato.diffusion.presets import A1111, A1111_SPACINGS, preset, spacing_name, with_overrides
from sfumato.server.dialects.a1111_samplers import (
    SAMPLERS,
    SCHEDULERS,
    find_sampler,
    find_scheduler,
    read_sampler,
    spacing_of,
)
from sfumato.server.problems import Problem

# modules/sd_samplers_kdiffusion.py and sd_samplers_timesteps.py of 1.10: the schedule type that "automatic" is
AUTOMATIC = {
    "DPM++ 2M": "karras",
    "DPM++ SDE": "karras",
    "DPM++ 2M SDE": "exponential",
    "DPM++ 2M SDE Heun": "exponential",
    "DPM++ 2S a": "karras",
    "DPM++ 3M SDE": "exponential",
    "Euler a": "normal",  # its `uniform`
    "Euler": "normal",
    "LMS": "normal",
    "Heun": "normal",
    "DPM2": "karras",
    "DPM2 a": "karras",
}


@pytest.mark.parametrize("name", [each.name for each in SAMPLERS])
def test_every_listed_sampler_can_be_asked_for(name: str) -> None:
    preset(name)  # raises for an unknown one


def test_every_sampler_of_a1111_that_the_core_has_is_listed() -> None:
    assert set(A1111) <= {each.name for each in SAMPLERS}


def test_every_schedule_type_is_a_spacing() -> None:
    assert {each.label for each in SCHEDULERS[1:]} == set(A1111_SPACINGS)
    for each in SCHEDULERS[1:]:
        assert each.spacing == A1111_SPACINGS[each.label] == spacing_name(each.label)


@pytest.mark.parametrize(("name", "spacing"), AUTOMATIC.items())
def test_automatic_is_what_version_1_10_makes_of_it(name: str, spacing: str) -> None:
    sampler, scheduler = read_sampler(name, "automatic")
    chosen = with_overrides(preset("ddim"), sampler=sampler.name, spacing=spacing_of(sampler, scheduler))
    assert chosen.spacing == spacing


@pytest.mark.parametrize(
    ("sent", "scheduler", "found"),
    [
        ("Euler a", "Automatic", ("Euler a", "automatic")),
        ("euler A", "", ("Euler a", "automatic")),
        ("k_euler_ancestral", "karras", ("Euler a", "karras")),
        ("DPM++ 2M Karras", "automatic", ("DPM++ 2M", "karras")),
        ("DPM++ 2M SDE Heun Exponential", "Karras", ("DPM++ 2M SDE Heun", "exponential")),  # the name wins
        ("DPM++ 3M SDE SGM Uniform", "", ("DPM++ 3M SDE", "sgm_uniform")),
        ("DPM++ 2M SGMUniform", "", ("DPM++ 2M", "sgm_uniform")),
        ("LMS Polyexponential", "", ("LMS", "polyexponential")),
        ("k_dpmpp_2m_ka", "", ("DPM++ 2M", "karras")),
        ("k_dpmpp_2m_sde_exp", "", ("DPM++ 2M SDE", "exponential")),
        ("Euler", "SGM Uniform", ("Euler", "sgm_uniform")),
        ("Euler", "kl_optimal", ("Euler", "kl_optimal")),
        ("DDIM", "ddim", ("DDIM", "ddim")),
    ],
)
def test_names_are_read_as_a1111_reads_them(sent: str, scheduler: str, found: tuple[str, str]) -> None:
    sampler, kind = read_sampler(sent, scheduler)
    assert (sampler.name, kind.name) == found


@pytest.mark.parametrize("name", ["Nonsense", "DPM adaptive", "Nonsense Karras", "Karras", ""])
def test_an_unknown_sampler_is_answered_as_a1111_does(name: str) -> None:
    with pytest.raises(Problem, match="Sampler not found") as caught:
        read_sampler(name, "automatic")
    assert caught.value.status == 404


def test_an_unknown_schedule_type_is_refused() -> None:
    with pytest.raises(Problem, match="scheduler is 'bogus'; known are automatic, uniform, karras") as caught:
        read_sampler("Euler", "bogus")
    assert (caught.value.status, caught.value.field) == (422, "scheduler")


def test_what_lays_its_own_timesteps_takes_no_schedule_type_and_sdxl_has_its_own_align_your_steps() -> None:
    karras, aligned = find_scheduler("karras"), find_scheduler("Align Your Steps")
    ddim, euler = find_sampler("DDIM"), find_sampler("Euler")
    assert karras and aligned and ddim and euler
    assert spacing_of(ddim, karras) is None
    assert spacing_of(euler, karras) == "karras"
    assert spacing_of(euler, aligned) == "align_your_steps"
    assert spacing_of(euler, aligned, sdxl=True) == "align_your_steps_sdxl"


def test_lists_have_the_shape_of_a1111() -> None:
    assert SAMPLERS[6].listed() == {
        "name": "Euler a",
        "aliases": ["k_euler_a", "k_euler_ancestral"],
        "options": {"uses_ensd": "True"},
    }
    assert SCHEDULERS[2].listed() == {
        "name": "karras",
        "label": "Karras",
        "aliases": None,
        "default_rho": 7.0,
        "need_inner_model": False,
    }
