"""One weight file as another: a pickle as safetensors, or in another precision, tensor by tensor, names as they are."""

from pathlib import Path

import torch

from sfumato.errors import OutputFormatError
from sfumato.weights.files import DTYPES, open_file
from sfumato.weights.streaming import write_stream
from sfumato.weights.writing import written_aside


def rewrite(source: Path, path: Path, *, dtype: torch.dtype | None = None, overwrite: bool = False) -> Path:
    """Write the tensors of any weight file as safetensors, whole numbers as they are; return the path.

    `dtype`: the precision of the others, by default their own. Raises what `open_file` raises, and OutputError.
    """
    if path.suffix != ".safetensors":
        raise OutputFormatError(f"{path}: weights are written as .safetensors; name the file so.")
    tensors = open_file(source)
    kept = {name: DTYPES[info.dtype] for name, info in tensors.infos.items()}
    outline = {
        name: (dtype if dtype is not None and kind.is_floating_point else kind, tensors.infos[name].shape)
        for name, kind in kept.items()
    }
    with written_aside(path, overwrite=overwrite) as aside:
        write_stream(aside, outline, lambda name: tensors[name].to(outline[name][0]), tensors.metadata)
    return path
