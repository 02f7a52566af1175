"""Samplers: each integrates any denoiser over a list of noise levels, and yields a Step for each interval."""

from collections.abc import Callable, Iterator

from sfumato.diffusion.samplers.cfg_pp import dpmpp_2m_cfg_pp, dpmpp_2s_ancestral_cfg_pp, res_multistep_cfg_pp
from sfumato.diffusion.samplers.consistency import lcm, tcd
from sfumato.diffusion.samplers.dpm import dpm_multistep
from sfumato.diffusion.samplers.dpmpp import (
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2m_sde_heun,
    dpmpp_3m_sde,
    dpmpp_multistep,
    dpmpp_singlestep,
)
from sfumato.diffusion.samplers.euler import euler, euler_ancestral
from sfumato.diffusion.samplers.multistep import deis, lms, plms
from sfumato.diffusion.samplers.singlestep import dpm2, dpm2_ancestral, dpmpp_2s_ancestral, dpmpp_sde, heun
from sfumato.diffusion.samplers.step import Sampler, Step
from sfumato.diffusion.samplers.unipc import unipc

SAMPLERS: dict[str, Callable[..., Iterator[Step]]] = {
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "heun": heun,
    "dpm2": dpm2,
    "dpm2_ancestral": dpm2_ancestral,
    "lms": lms,
    "plms": plms,
    "dpmpp_2s_ancestral": dpmpp_2s_ancestral,
    "dpmpp_sde": dpmpp_sde,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_2m_sde_heun": dpmpp_2m_sde_heun,
    "dpmpp_3m_sde": dpmpp_3m_sde,
    "dpmpp_multistep": dpmpp_multistep,
    "dpmpp_singlestep": dpmpp_singlestep,
    "dpm_multistep": dpm_multistep,
    "deis": deis,
    "unipc": unipc,
    "dpmpp_2m_cfg_pp": dpmpp_2m_cfg_pp,
    "dpmpp_2s_ancestral_cfg_pp": dpmpp_2s_ancestral_cfg_pp,
    "res_multistep_cfg_pp": res_multistep_cfg_pp,
    "lcm": lcm,
    "tcd": tcd,
}
"""Each is a `Sampler`; keyword arguments are its options."""

TAKES_ETA = frozenset({"euler", "euler_ancestral", "dpm2", "dpm2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"})
TAKES_ETA |= {"dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde", "tcd"}
TAKES_ETA |= {"dpmpp_multistep", "dpmpp_singlestep", "dpmpp_2s_ancestral_cfg_pp"}
"""Samplers with a share of fresh noise, `eta`."""

TAKES_SCHEDULE = frozenset({"lcm", "tcd"})
"""Samplers that read timesteps too, and take the model's schedule as an option."""

TAKES_UNCONDITIONAL = frozenset({"dpmpp_2m_cfg_pp", "dpmpp_2s_ancestral_cfg_pp", "res_multistep_cfg_pp"})
"""Samplers that may be told what the unconditional estimate is, as an option."""

__all__ = [
    "SAMPLERS",
    "TAKES_ETA",
    "TAKES_SCHEDULE",
    "TAKES_UNCONDITIONAL",
    "Sampler",
    "Step",
    "deis",
    "dpm2",
    "dpm2_ancestral",
    "dpm_multistep",
    "dpmpp_2m",
    "dpmpp_2m_cfg_pp",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_heun",
    "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp",
    "dpmpp_3m_sde",
    "dpmpp_multistep",
    "dpmpp_sde",
    "dpmpp_singlestep",
    "euler",
    "euler_ancestral",
    "heun",
    "lcm",
    "lms",
    "plms",
    "res_multistep_cfg_pp",
    "tcd",
    "unipc",
]
