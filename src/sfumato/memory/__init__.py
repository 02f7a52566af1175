"""How much memory a request will take, before anything is loaded, and how it is made to fit what there is.

Weights are counted from the files' headers. What the networks hold while they run is counted by running them without
numbers, on PyTorch's meta device, and corrected by what was measured (`python -m bench.memory`).
"""

from sfumato.memory.asked import picture_size, shape_of, size_of
from sfumato.memory.beside import NOTHING, Beside, files_beside, open_beside, upscaler_of
from sfumato.memory.held import TILE, Held, Shape, bytes_of, networks, surely_fits
from sfumato.memory.plan import Plan, make_plan
from sfumato.memory.sizes import available, checked_budget, least_size, parse_size, readable_size, resident

__all__ = [
    "NOTHING",
    "TILE",
    "Beside",
    "Held",
    "Plan",
    "Shape",
    "available",
    "bytes_of",
    "checked_budget",
    "files_beside",
    "least_size",
    "make_plan",
    "networks",
    "open_beside",
    "parse_size",
    "picture_size",
    "readable_size",
    "resident",
    "shape_of",
    "size_of",
    "surely_fits",
    "upscaler_of",
]
