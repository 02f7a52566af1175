"""A job as a value: what to draw, with which settings; checked when made, and the same through JSON.

`None` means "what suits the model"; `sfumato.job.resolve` replaces every None by a concrete value.
"""

from sfumato.request.filling import DEFAULT_STRENGTH, SEED_BITS, Defaults, fill
from sfumato.request.parts import Embedding, Lora, checked_embeddings, checked_loras
from sfumato.request.request import SEED_LIMIT, SIDE_RANGE, NoiseMode, Request

__all__ = [
    "DEFAULT_STRENGTH",
    "SEED_BITS",
    "SEED_LIMIT",
    "SIDE_RANGE",
    "Defaults",
    "Embedding",
    "Lora",
    "NoiseMode",
    "Request",
    "checked_embeddings",
    "checked_loras",
    "fill",
]
