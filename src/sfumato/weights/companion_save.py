"""An inpainting companion written as a file, and kept with its model when that is written elsewhere."""

import hashlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from sfumato.errors import OutputError
from sfumato.model import Model
from sfumato.nn.lora import Adapters
from sfumato.weights.companion import (
    BASE,
    BIAS,
    FAMILY,
    KIND,
    NUMBERS,
    WEIGHT,
    WHAT,
    base_digest,
    base_of,
    is_for,
    numbers_digest,
    unet_files,
)
from sfumato.weights.component_files import COMPANION_FILE
from sfumato.weights.files import is_finite, open_file
from sfumato.weights.lora_names import UNET
from sfumato.weights.lora_save import file_bytes, kohya_tensors, stored
from sfumato.weights.writing import written_aside

log = logging.getLogger(__name__)


def save_companion(
    path: Path | str,
    adapters: Adapters,
    conv_in: nn.Conv2d,
    base: Model,
    *,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
    overwrite: bool = False,
) -> Path:
    """Write what makes a model's widened UNet inpaint: low-rank changes and its whole first layer; return the path.

    `base` is the model with its plain UNet, as it was loaded: the file is for it alone. Raises OutputError for layers
    that are not those of such a UNet, numbers that are not finite in the precision, and a path that cannot be written.
    """
    path = Path(path)
    channels = 2 * base.unet.config.out_channels + 1
    shape = (base.unet.conv_in.out_channels, channels, *base.unet.conv_in.kernel_size)
    if tuple(conv_in.weight.shape) != shape or conv_in.bias is None:
        raise OutputError(f"{path}: the first layer is {list(conv_in.weight.shape)}; {list(shape)} sees a mask.")
    if not len(adapters) or "conv_in" in adapters.paths:
        raise OutputError(f"{path}: a companion has low-rank changes, of other layers than the first, which is whole.")
    tensors = {WEIGHT: stored(conv_in.weight, dtype), BIAS: stored(conv_in.bias, dtype)}
    tensors |= kohya_tensors({UNET: adapters}, dtype)
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise OutputError(f"{path}: {name!r} is not finite in {tensor.dtype}; use bfloat16 or float32.")
    told = {"format": "pt", **(metadata or {}), KIND: WHAT, FAMILY: base.family.name, BASE: base_digest(base)}
    if unet_files(base):
        told[NUMBERS] = numbers_digest(unet_files(base))
    with written_aside(path, overwrite=overwrite) as aside:
        aside.write_bytes(file_bytes(tensors, told))
    return path


def carry(companion: Path, unet: Path, folder: Path) -> None:
    """Put a companion into a model's folder that is being written, if `unet` there is the UNet that it is for.

    Where that is another file with the same numbers, its metadata name that file. Otherwise it is left out, which is
    logged.
    """
    with unet.open("rb") as file:  # not by what is remembered of files: this one lies here for a moment only
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    tensors = open_file(companion)
    if digest == base_of(tensors):
        shutil.copyfile(companion, folder / COMPANION_FILE)
    elif is_for(tensors, digest, (unet,)):
        told = {**tensors.metadata, BASE: digest}
        (folder / COMPANION_FILE).write_bytes(file_bytes({name: tensors[name] for name in tensors}, told))
    else:
        log.warning("%s is left out: what is written here is another UNet than the one that it is for", companion)
