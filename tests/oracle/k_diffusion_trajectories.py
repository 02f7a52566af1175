"""Recipe: writes k_diffusion_trajectories.npz, the paths of k-diffusion's samplers on an exact mixture denoiser.

    python tests/oracle/k_diffusion_trajectories.py

k-diffusion 0.1.1, torch 2.13, float64. Only its `sampling` module is loaded: its package imports networks and
metrics that the samplers do not need. Noise is passed in and stored, so nothing depends on a generator's stream.
"""

import importlib.util
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "diffusion"))
from toys import mixture  # noqa: E402

SHAPE = (1, 2, 2, 2)
STEPS = 10
DRAWS = 2 * STEPS
MEANS, DEVIATION = (-1.0, 0.2, 1.5), 0.3

SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("sample_euler", {}),
    "euler_ancestral": ("sample_euler_ancestral", {}),
    "euler_ancestral_half": ("sample_euler_ancestral", {"eta": 0.5}),
    "heun": ("sample_heun", {}),
    "dpm2": ("sample_dpm_2", {}),
    "dpm2_ancestral": ("sample_dpm_2_ancestral", {}),
    "lms": ("sample_lms", {}),
    "dpmpp_2s_ancestral": ("sample_dpmpp_2s_ancestral", {}),
    "dpmpp_2m": ("sample_dpmpp_2m", {}),
    "dpmpp_sde": ("sample_dpmpp_sde", {}),
    "dpmpp_2m_sde": ("sample_dpmpp_2m_sde", {}),
    "dpmpp_2m_sde_half": ("sample_dpmpp_2m_sde", {"eta": 0.5}),
    "dpmpp_2m_sde_heun": ("sample_dpmpp_2m_sde", {"solver_type": "heun"}),
    "dpmpp_3m_sde": ("sample_dpmpp_3m_sde", {}),
}


def load() -> types.ModuleType:
    """k-diffusion's sampling module, with the one helper of its package that it uses."""
    found = importlib.util.find_spec("k_diffusion")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("k-diffusion is not installed")
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(found.submodule_search_locations)
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, count: x[(...,) + (None,) * (count - x.ndim)]
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils}
    return importlib.import_module("k_diffusion.sampling")


class Draws:
    """The stored draws in order; where two belong to one step, the second contains the first."""

    def __init__(self, noise: Tensor, nested: bool) -> None:
        self.noise, self.nested, self.count = noise, nested, 0
        self.middle: float | None = None

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        fresh = self.noise[self.count]
        self.count += 1
        if not self.nested:
            return fresh
        if self.middle is None:
            self.middle = float(sigma_next)
            return fresh
        part = (float(sigma) - self.middle) / (float(sigma) - float(sigma_next))
        self.middle = None
        return self.noise[self.count - 2] * math.sqrt(part) + fresh * math.sqrt(1 - part)


def main() -> None:
    sampling = load()
    generator = torch.Generator().manual_seed(2024)
    start = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    noise = torch.randn((DRAWS, *SHAPE), generator=generator, dtype=torch.float64)
    denoise = mixture(MEANS, DEVIATION)
    arrays: dict[str, np.ndarray] = {"start": start.numpy(), "noise": noise.numpy()}
    karras = sampling.get_sigmas_karras(STEPS, 0.0292, 14.6146).double()
    exponential = sampling.get_sigmas_exponential(STEPS, 0.0292, 14.6146).double()
    exponential[-1] = 0.0145  # a run that ends above 0
    levels = {"karras": karras, "exponential": exponential}
    for spacing, sigmas in levels.items():
        arrays[f"sigmas/{spacing}"] = sigmas.numpy()
        for name, (function, options) in SAMPLERS.items():
            path: list[Tensor] = []
            options = dict(options)
            if "ancestral" in name or "sde" in name:
                options["noise_sampler"] = Draws(noise, nested=name == "dpmpp_sde")
            last = getattr(sampling, function)(
                lambda x, sigma: denoise(x, float(sigma[0])),
                start * sigmas[0],
                sigmas,
                callback=lambda info, path=path: path.append(info["x"].clone()),
                disable=True,
                **options,
            )
            arrays[f"{spacing}/{name}"] = torch.stack([*path[1:], last]).numpy()
    np.savez_compressed(HERE / "k_diffusion_trajectories.npz", **arrays)


if __name__ == "__main__":
    main()
