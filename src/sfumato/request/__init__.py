"""A job as a value: what to draw, with which settings; checked when made, and the same through JSON.

`None` means "what suits the model"; `sfumato.job.resolve` replaces every None by a concrete value.
"""

from sfumato.request.controls import (
    PREPROCESSORS,
    TASK_OF,
    TASKS,
    Control,
    ControlMode,
    ImagePrompt,
    checked_controls,
    checked_image_prompts,
    checked_options,
)
from sfumato.request.filling import DEFAULT_STRENGTH, SEED_BITS, Defaults, draw_seed, fill
from sfumato.request.parts import Embedding, Lora, checked_embeddings, checked_loras
from sfumato.request.pictures import (
    LATENT_UPSCALERS,
    PIXEL_UPSCALERS,
    SEED_LIMIT,
    SIDE_RANGE,
    Hires,
    MaskedContent,
    Outpaint,
    ResizeMode,
    StrengthRule,
    Variation,
    Windows,
    checked_upscaler,
)
from sfumato.request.regions import Region, checked_regions, parse_region
from sfumato.request.request import Dialect, NoiseMode, Request, checked_dialect, ranges

__all__ = [
    "DEFAULT_STRENGTH",
    "LATENT_UPSCALERS",
    "PIXEL_UPSCALERS",
    "PREPROCESSORS",
    "SEED_BITS",
    "SEED_LIMIT",
    "SIDE_RANGE",
    "TASKS",
    "TASK_OF",
    "Control",
    "ControlMode",
    "Defaults",
    "Dialect",
    "Embedding",
    "Hires",
    "ImagePrompt",
    "Lora",
    "MaskedContent",
    "NoiseMode",
    "Outpaint",
    "Region",
    "Request",
    "ResizeMode",
    "StrengthRule",
    "Variation",
    "Windows",
    "checked_controls",
    "checked_dialect",
    "checked_embeddings",
    "checked_image_prompts",
    "checked_loras",
    "checked_options",
    "checked_regions",
    "checked_upscaler",
    "draw_seed",
    "fill",
    "parse_region",
    "ranges",
]
