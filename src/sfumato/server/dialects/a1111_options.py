"""A1111's options: the flat object of `/sdapi/v1/options`, and which of them a picture depends on here."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from sfumato.errors import ModelFileError
from sfumato.request import ranges
from sfumato.request.pictures import Masking
from sfumato.server.dialects.a1111_fields import Fields, refuse
from sfumato.weights.writing import write_text

FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
"""A1111's names of the formats of pictures, and the service's."""

DEFAULTS: dict[str, Any] = {
    "sd_model_checkpoint": None,  # the server's own model
    "sd_checkpoint_hash": "",
    "sd_vae": "Automatic",
    "CLIP_stop_at_last_layers": 1,
    "randn_source": "GPU",
    "eta_noise_seed_delta": 0,
    "img2img_fix_steps": False,
    "sfumato_masking": None,  # not A1111's: how a mask acts, "network" or "blend"; what suits the model otherwise
    "control_net_no_detectmap": False,
    "samples_format": "png",
    "return_grid": False,
    "grid_format": "png",
    "enable_pnginfo": True,
    "live_previews_enable": True,
    "live_previews_image_format": "png",
    "show_progress_every_n_steps": 10,
    "show_progress_type": "Approx NN",
    "outdir_samples": "",
    "outdir_txt2img_samples": "",
    "outdir_img2img_samples": "",
    "outdir_extras_samples": "",
    "outdir_grids": "",
    "outdir_txt2img_grids": "",
    "outdir_img2img_grids": "",
    "outdir_save": "",
    "samples_save": True,
    "grid_save": False,
    "save_to_dirs": False,
}
"""What is kept and told, and what it is until somebody sets it."""

FIXED: dict[str, Any] = {
    "always_discard_next_to_last_sigma": False,
    "emphasis": "Original",
    "img2img_color_correction": False,
    "img2img_extra_noise": 0.0,
    "inpainting_mask_weight": 1.0,
    "initial_noise_multiplier": 1.0,
    "s_churn": 0.0,
    "s_min_uncond": 0.0,
    "sd_hypernetwork": "None",
    "sd_noise_schedule": "Default",
    "sgm_noise_multiplier": False,
    "skip_early_cond": 0.0,
    "token_merging_ratio": 0.0,
    "token_merging_ratio_hr": 0.0,
    "token_merging_ratio_img2img": 0.0,
    "uni_pc_order": 3,
    "uni_pc_variant": "bh1",
}
"""What would change the picture and has one value here; another one is refused, not ignored."""

WHOLE: dict[str, tuple[float, float]] = {
    "CLIP_stop_at_last_layers": (1, ranges()["clip_skip"][1] + 1),
    "eta_noise_seed_delta": ranges()["step_seed_delta"],
}
"""Whole numbers that a picture depends on: the least and the most that each may be."""


def effective(options: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """The options that count for one request."""
    return {**DEFAULTS, **options, **_stated(override)}


def _stated(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def check_options(options: Mapping[str, Any]) -> None:
    """Raise Problem 422 for an option that cannot be honoured or has no such value."""
    for name, only in FIXED.items():
        value = options.get(name)
        if value is not None and value != only:
            raise refuse(name, f"is {value!r}; sfumato does that as with {only!r} alone")
    fields = Fields(options)
    for name, (least, most) in WHOLE.items():
        if not least <= fields.whole(name, DEFAULTS[name]) <= most:
            raise refuse(name, f"is {options[name]}; it must be {least} to {most}")
    if fields.text("sfumato_masking") not in ("", *get_args(Masking)):
        known = " or ".join(get_args(Masking))
        raise refuse("sfumato_masking", f"is {options['sfumato_masking']!r}; it must be {known}, or null")
    if fields.text("samples_format", "png").lower() not in FORMATS:
        raise refuse("samples_format", f"is {options['samples_format']!r}; it must be png, jpg or webp")
    if fields.text("randn_source", "GPU").upper() not in ("GPU", "CPU", "NV"):
        raise refuse("randn_source", f"is {options['randn_source']!r}; it must be GPU, CPU or NV")


class Options:
    """The options of this server, kept in a file. For several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._values: dict[str, Any] = {}
        if path.exists():
            try:
                self._values = _stated(dict(json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError) as error:
                raise ModelFileError(f"{path}: not a JSON object of options: {error}; correct or remove it") from error

    def all(self) -> dict[str, Any]:
        """What is set and what is not, as A1111 tells it."""
        with self._lock:
            return {**DEFAULTS, **FIXED, **self._values}

    def set(self, values: Mapping[str, Any]) -> None:
        """Change some; null is the default again. Raises Problem 422, and changes none, if one cannot be honoured."""
        check_options(effective(self.all(), values))
        with self._lock:
            self._values = _stated(self._values | {name: values[name] for name in values if name in DEFAULTS})
            write_text(self._path, json.dumps(self._values, indent=2) + "\n")
