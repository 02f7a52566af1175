"""What a control network's file is for, told from its header or its name: nothing here opens weights."""

from pathlib import Path
from typing import Literal

from sfumato.errors import ModelFileError
from sfumato.weights.header import read_header

Role = Literal["control", "image_prompt"]

KEYS = "ip_adapter."  # the tensors of an IP-Adapter that are in a UNet, in the files that are published


def role_of(path: Path) -> Role:
    """Whether a file is for a request's `controls` or, being an IP-Adapter, for its `image_prompts`.

    Of a pickle, which is not opened here, its name tells.
    """
    if path.suffix == ".safetensors":
        try:
            return "image_prompt" if any(name.startswith(KEYS) for name in read_header(path).tensors) else "control"
        except ModelFileError:  # a job that names it says what is wrong
            pass
    return "image_prompt" if "ipadapter" in path.stem.lower().replace("-", "").replace("_", "") else "control"
