"""Is a file whole, and is it the one that it should be: every number finite, every hash as it was told."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import cast

from sfumato.errors import ModelFileError, SfumatoError
from sfumato.model import COMPANION
from sfumato.nn.unet import UNet
from sfumato.weights.companion import Companion
from sfumato.weights.files import TensorFile, check_finite, open_file
from sfumato.weights.hashing import hash_files
from sfumato.weights.header import read_header
from sfumato.weights.ldm import UNET_PREFIX
from sfumato.weights.load import files_of, open_model
from sfumato.weights.locate import locate
from sfumato.weights.opened import Opened
from sfumato.weights.registry import Kind
from sfumato.weights.single import METADATA

BLOB = re.compile(r"[0-9a-f]{64}")  # how the Hugging Face cache calls the files whose sha256 the hub told
KOHYA = "sshs_model_hash"  # in a LoRA's metadata: sha256 of all that follows the header
PIECE = 1 << 20
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Verified:
    """What was verified: the sha256 of each component, how many tensors and numbers, and what hashes were compared."""

    sha256: dict[str, str]
    tensors: int
    numbers: int
    compared: tuple[str, ...]


def verify(
    name: str | Path | None = None, *, kind: Kind = "model", expected: str | None = None, told: Told | None = None
) -> Verified:
    """Read every tensor of a model, or of any other weight file, one at a time.

    `expected`: the beginning of the sha256 that it should have. A model's names and shapes are compared with its
    networks, too. Raises ModelFileError for the first that is wrong, and what `open_model` raises.
    """
    files, tensors, whole = opened(name, kind)
    compared = []
    hashes = {component: hash_files(paths) for component, paths in files.items()}
    for component, paths in files.items():
        compared += [f"{path.name}: {what}" for path in paths for what in compare(path, hash_files((path,)))]
        if expected is not None and len(files) == 1:
            if not hashes[component].startswith(expected.lower()):
                raise ModelFileError(f"{paths[0]}: its sha256 is {hashes[component]}, not {expected}: another version.")
            compared.append(f"{paths[0].name}: the sha256 that was given")
    if expected is not None and len(files) != 1:
        raise ModelFileError(f"{name}: has {len(files)} files, each with a sha256 of its own; verify one by its path.")
    todo = [(file, each) for file in tensors for each in file]
    numbers = 0
    for done, (file, each) in enumerate(todo):
        check_finite(each, file[each], file.path_of(each))
        numbers += file.infos[each].count
        if told is not None:
            told(done + 1, len(todo))
    if whole is not None and whole.prediction is None:
        compared.append("what it predicts is told by nothing")
    return Verified(hashes, len(todo), numbers, tuple(compared))


def opened(name: str | Path | None, kind: Kind) -> tuple[dict[str, tuple[Path, ...]], list[TensorFile], Opened | None]:
    """Open a model with its networks compared, or any other file; return its files, its tensors, and the model."""
    try:
        model = open_model(name)
    except SfumatoError:
        if name is None:
            raise
        path = locate(name, kind=kind)
        if path.is_dir() or is_whole(path):
            raise
        tensors = open_file(path)
        return {"file": tensors.paths}, [tensors], None
    distinct = {component.tensors.paths: component.tensors for component in model.components.values()}
    files, every = files_of(model), list(distinct.values())
    if model.companion is not None:
        Companion(model.companion, cast(UNet, model.unet.part.network).conv_in).check(model, model.path.name)
        files, every = {**files, COMPANION: model.companion.paths}, [*every, model.companion]
    return files, every, model


def is_whole(path: Path) -> bool:
    """Say whether a file claims to be a whole checkpoint, which then has to be one."""
    tensors = open_file(path)
    return METADATA in tensors.metadata or any(name.startswith(UNET_PREFIX) for name in tensors)


def compare(path: Path, found: str) -> list[str]:
    """Compare a file with the hashes that its own name in the cache and its metadata tell."""
    compared = []
    blob = path.resolve().name
    if BLOB.fullmatch(blob):
        if found != blob:
            raise ModelFileError(f"{path}: damaged: its sha256 is {found}, the hub's {blob}; download it again.")
        compared.append("the hub's sha256")
    if path.suffix == ".safetensors":
        header = read_header(path)
        told = header.metadata.get(KOHYA, "").removeprefix("0x")
        if BLOB.fullmatch(told):
            if hash_behind(path, header.start) != told:
                raise ModelFileError(f"{path}: damaged or changed: its tensors are not those that its {KOHYA} is of.")
            compared.append(f"its {KOHYA}")
    return compared


def hash_behind(path: Path, start: int) -> str:
    """Return the sha256 of a file from a byte on."""
    digest = sha256()
    with path.open("rb") as file:
        file.seek(start)
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
