"""A job as a value: what to draw, with which settings; checked when made, and the same through JSON.

`None` means "what suits the model"; `sfumato.job.resolve` replaces every None by a concrete value.
"""

from sfumato.request.filling import DEFAULT_STRENGTH, SEED_BITS, Defaults, fill
from sfumato.request.parts import Embedding, Lora, checked_embeddings, checked_loras
from sfumato.request.pictures import SEED_LIMIT, SIDE_RANGE, MaskedContent, ResizeMode, Variation
from sfumato.request.request import Dialect, NoiseMode, Request, checked_dialect, ranges

__all__ = [
    "DEFAULT_STRENGTH",
    "SEED_BITS",
    "SEED_LIMIT",
    "SIDE_RANGE",
    "Defaults",
    "Dialect",
    "Embedding",
    "Lora",
    "MaskedContent",
    "NoiseMode",
    "Request",
    "ResizeMode",
    "Variation",
    "checked_dialect",
    "checked_embeddings",
    "checked_loras",
    "fill",
    "ranges",
]
