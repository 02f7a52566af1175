"""Our samplers on k-diffusion's levels: the same latents as its own, whose paths are stored with their recipe."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toys import mixture

from sfumato.diffusion.samplers import SAMPLERS

with np.load(Path(__file__).parents[1] / "oracle" / "k_diffusion_trajectories.npz") as stored:
    STORED = dict(stored)
PATHS = sorted(name for name in STORED if "/" in name and not name.startswith("sigmas/"))


@pytest.mark.parametrize("path", PATHS)
def test_every_step_equals_k_diffusion(path: str) -> None:
    spacing, name = path.split("/")
    options = {"eta": 0.5} if name.endswith("_half") else {}
    sampler = SAMPLERS[name.removesuffix("_half")]
    sigmas = STORED[f"sigmas/{spacing}"].tolist()
    noise = torch.from_numpy(STORED["noise"])
    draws = iter(noise)
    x = torch.from_numpy(STORED["start"]) * sigmas[0]
    # the recipe's denoiser: an equal mixture with these means and this deviation
    steps = list(sampler(mixture((-1.0, 0.2, 1.5), 0.3), x, sigmas, lambda _: next(draws), **options))
    for step, expected in zip(steps, torch.from_numpy(STORED[path]), strict=True):
        # k-diffusion's LMS weights are integrated numerically, the others only differ in rounding
        tolerance = 1e-7 if name == "lms" else 1e-11
        assert float((step.x - expected).abs().max()) <= tolerance * sigmas[0], step.index


def test_stored_paths_cover_every_sampler_of_k_diffusion_that_we_have() -> None:
    theirs = {path.split("/")[1].removesuffix("_half") for path in PATHS}
    own = {"plms", "deis", "unipc", "lcm", "tcd", "dpmpp_multistep", "dpmpp_singlestep", "dpm_multistep"}
    own |= {"dpmpp_2m_cfg_pp", "dpmpp_2s_ancestral_cfg_pp", "res_multistep_cfg_pp"}
    assert theirs == set(SAMPLERS) - own
