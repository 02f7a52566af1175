"""Infotext as fields. The example is the one that A1111's own wiki and tests use."""

import pytest

from sfumato.server.dialects.a1111_infotext import filled_in, parameters_of

TEXT = """a photo of a cat, (best:1.2)
with two lines
Negative prompt: dog
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 965400086, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned, Denoising strength: 0.7, Clip skip: 2, ENSD: 31337, RNG: CPU, \
Hires upscale: 2, Hires steps: 10, Hires upscaler: "Latent (antialiased)", Version: v1.10.1"""


def test_a_text_is_told_key_by_key() -> None:
    found = parameters_of(TEXT)
    assert found["Prompt"] == "a photo of a cat, (best:1.2)\nwith two lines"
    assert found["Negative prompt"] == "dog"
    assert (found["Steps"], found["Size-1"], found["Size-2"]) == ("20", "512", "768")
    assert (found["Hires upscaler"], found["Hires resize-1"]) == ("Latent (antialiased)", 0)
    assert (found["Schedule type"], found["RNG"], found["Clip skip"]) == ("Karras", "CPU", "2")
    assert "Size" not in found


def test_a_silent_text_has_the_defaults_of_its_time() -> None:
    found = parameters_of("a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512")
    assert (found["RNG"], found["Schedule type"], found["Clip skip"]) == ("GPU", "Automatic", "1")
    assert (found["Masked content"], found["Inpaint area"]) == ("original", "Whole picture")
    assert parameters_of("") == {} == parameters_of("  \n")


def test_a_body_is_filled_in_where_it_says_nothing() -> None:
    body = filled_in({"infotext": TEXT, "steps": 30, "seed": None, "override_settings": {"randn_source": "NV"}})
    assert (body["steps"], body["seed"], body["cfg_scale"]) == (30, 965400086, 7.5)
    assert (body["sampler_name"], body["scheduler"]) == ("DPM++ 2M", "Karras")
    assert (body["width"], body["height"], body["enable_hr"], body["hr_scale"]) == (512, 768, True, 2.0)
    assert body["override_settings"] == {
        "CLIP_stop_at_last_layers": 2,
        "eta_noise_seed_delta": 31337,
        "randn_source": "NV",
        "sd_model_checkpoint": "v1-5-pruned",
    }


@pytest.mark.parametrize("body", [{}, {"infotext": None}, {"infotext": ""}, {"infotext": 3}])
def test_a_body_without_a_text_stays_as_it_is(body: dict[str, object]) -> None:
    assert filled_in(body) == body


def test_numbers_that_are_none_are_left_out() -> None:
    body = filled_in({"infotext": "a\nSteps: many, Sampler: Euler, CFG scale: 7, Seed: x, Size: big"})
    assert "steps" not in body and "seed" not in body and "width" not in body
    assert body["cfg_scale"] == 7.0


@pytest.mark.parametrize(
    ("said", "meant"), [("512x512", True), ("0x0", False), ("abc", False), ("9" * 5000 + "x1", False)]
)
def test_a_second_pass_is_meant_where_the_text_has_a_size_for_it(said: str, meant: bool) -> None:
    text = f"a\nSteps: 20, Sampler: Euler, Hires resize: {said}"
    assert filled_in({"infotext": text}).get("enable_hr", False) is meant
    assert filled_in({"infotext": text, "enable_hr": False})["enable_hr"] is False
    assert filled_in({"infotext": "a\nSteps: 20, Sampler: Euler, Hires resize-1: abc"}).get("enable_hr") is None
