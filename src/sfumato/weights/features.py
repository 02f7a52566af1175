"""What text encoders make of a prompt, as a file."""

from pathlib import Path

from safetensors.torch import save_file

from sfumato.errors import OutputFormatError
from sfumato.text.encode import Conditioning
from sfumato.weights.writing import written_aside


def save_features(conditioning: Conditioning, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write `context` [B, L, D] and, where the family has it, `pooled` [B, P] as .safetensors; return the path.

    Raises OutputError if the file exists (unless it may be overwritten), cannot be written or is named otherwise.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise OutputFormatError(f"{path}: features are written as .safetensors; name the file so.")
    named = {"context": conditioning.context, "pooled": conditioning.pooled}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in named.items() if tensor is not None}
    with written_aside(path, overwrite=overwrite) as aside:
        save_file(tensors, aside)
    return path
