"""Whether a file beside a model can go with it, as far as its header shows: nothing here opens weights.

A damaged file, or one for another family, is refused when a job is asked for, and not when it is drawn. Of a pickle
nothing is known here: the process that draws converts it first.
"""

import re
from pathlib import Path

from sfumato.errors import ModelFileError, RequestError
from sfumato.server.problems import plain
from sfumato.weights.header import Header, read_header
from sfumato.weights.registry import Kind

# A layer that reads the words in a ControlNet, or the half of a LoRA that is as wide as these, in every naming of both.
READS_WORDS = re.compile(r"attn2[._](processor\.)?to_k(_lora|\.lora)?(\.down|\.lora_A(\.\w+)?|\.lora_down)?\.weight$")


def check_file(kind: Kind, name: str, path: Path, field: str, context: int) -> None:
    """Raise RequestError for a damaged file, or a LoRA or ControlNet whose layers read words of another width.

    `context` is how many features of text the model's UNet attends to.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return
    try:
        header = read_header(path)
    except ModelFileError as error:
        raise RequestError(f"{field} has {name[:80]!r}, which cannot be used: {plain(str(error))}", field) from error
    widths = words_of(header) if kind in ("lora", "controlnet") else set()
    if len(widths) == 1 and context not in widths:
        raise RequestError(
            f"{field} has {name[:80]!r}, which is for a model that reads {widths.pop()} features of text; this one "
            f"reads {context}: use one of its family",
            field,
        )


def words_of(header: Header) -> set[int]:
    """How many features of text the layers of a file read; empty where its header does not show it."""
    return {
        info.shape[1]
        for name, info in header.tensors.items()
        if len(info.shape) == 2 and READS_WORDS.search(name) is not None
    }
