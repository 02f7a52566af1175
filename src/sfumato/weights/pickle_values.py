"""What a checkpoint's pickle may name, and what each name stands for here. Nothing is imported by a name in a file.

A pickle is a program for a machine that calls what it names. Tensors need a handful of names; each is a key of a table
below, a pair of module and name, and stands for a function of ours. A few more are met in training checkpoints beside
the tensors: those are kept as opaque words and never called. Any other name ends the reading.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sfumato.errors import ModelFileError
from sfumato.weights.header import ITEM_BYTES, RANK_LIMIT


class Damaged(ModelFileError):
    """A pickle that no saving of tensors writes. The path is put before it where it is known."""


@dataclass(frozen=True)
class Named:
    """A function or class that a pickle named. It is a word, not the thing."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Opaque:
    """What a pickle would have made of a known harmless class. `state` is what it would have been given."""

    kind: Named
    state: Any = None


@dataclass(frozen=True)
class Storage:
    """Where numbers lie: the key of a run of bytes in the file, its length in bytes, and its type (None: untold)."""

    key: str
    size: int
    dtype: str | None


@dataclass(frozen=True, eq=False)
class DenseTensor:
    """A tensor that was not read yet: a strided view of a storage. `offset` and `strides` count elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


# torch's name of a storage or type -> safetensors' name of the type
STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
UNTYPED = frozenset({Named("torch.storage", "UntypedStorage"), Named("torch", "UntypedStorage")})
PLAIN_TENSORS = frozenset(
    {Named("torch", "Tensor"), Named("torch._tensor", "Tensor"), Named("torch.nn.parameter", "Parameter")}
)
PARAMETER_DICT = Named("torch.nn.modules.container", "ParameterDict")
SAFE_LENGTH = 2**48  # of any size, stride or offset: far above every file, far below where products would be slow


def storage_of(pid: object) -> Storage:
    """Return the storage that a persistent id names: ("storage", type, key, device, count[, None])."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
        raise Damaged("it refers to something other than a tensor's storage")
    kind, key, count = pid[1], pid[2], pid[4]
    if len(pid) == 6 and pid[5] is not None:
        raise Damaged("it has views of storages, as PyTorch wrote before 0.4; save it again with a newer one")
    if not isinstance(kind, Named) or not isinstance(key, str) or not is_count(count):
        raise Damaged("a storage is not told by type, key and count")
    if kind in UNTYPED:
        return Storage(key, count, None)
    if kind.module not in ("torch", "torch.cuda") or kind.name not in STORAGES:
        raise Damaged(f"{kind} is no storage of numbers")
    dtype = STORAGES[kind.name]
    return Storage(key, count * ITEM_BYTES[dtype], dtype)


def dense(storage: object, offset: object, shape: object, strides: object, dtype: str | None) -> DenseTensor:
    """Return a view of a storage, checked to lie inside of it."""
    if not isinstance(storage, Storage) or dtype is None:
        raise Damaged("a tensor is not made of a storage of a known type")
    right = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= RANK_LIMIT
    if not right or not all(is_count(value) for value in (offset, *shape, *strides)):  # type: ignore[misc]
        raise Damaged("a tensor's offset, shape or strides are no counts")
    assert isinstance(shape, tuple) and isinstance(strides, tuple) and isinstance(offset, int)
    if 0 not in shape:
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if (last + 1) * ITEM_BYTES[dtype] > storage.size:
            raise Damaged(f"a tensor of shape {list(shape)} reaches beyond the {storage.size:,} bytes of its storage")
    return DenseTensor(storage, dtype, offset, shape, strides)


def is_count(value: object) -> bool:
    """Say whether a value is a whole number from 0 up, of a moderate size."""
    return type(value) is int and 0 <= value < SAFE_LENGTH


def _tensor(args: tuple[Any, ...]) -> DenseTensor:
    storage, offset, shape, strides = _arguments(args, 4)
    return dense(storage, offset, shape, strides, storage.dtype if isinstance(storage, Storage) else None)


def _tensor_of_type(args: tuple[Any, ...]) -> DenseTensor:
    storage, offset, shape, strides, _, _, kind = _arguments(args, 7)
    if not isinstance(kind, Named) or kind.module != "torch" or kind.name not in DTYPES:
        raise Damaged(f"a tensor has the type {str(kind)[:60]}, which is not read")
    return dense(storage, offset, shape, strides, DTYPES[kind.name])


def _parameter(args: tuple[Any, ...]) -> object:
    (data,) = _arguments(args, 1)
    return data


def _subclass(args: tuple[Any, ...]) -> object:
    make, kind, inner, _ = _arguments(args, 4)
    if kind not in PLAIN_TENSORS or make not in CALLS or CALLS[make] is _subclass or not isinstance(inner, tuple):
        raise Damaged(f"a tensor of the class {str(kind)[:60]} is not read")
    return CALLS[make](inner)


def _mapping(args: tuple[Any, ...]) -> dict[Any, Any]:
    if args and args != ({},) and args != ([],):
        raise Damaged("an ordered dictionary is made of something")
    return {}


def _several(args: tuple[Any, ...]) -> list[Any]:
    if len(args) > 1 or (args and not isinstance(args[0], list | tuple)):
        raise Damaged("a set is made of something other than a list")
    return list(args[0]) if args else []


def _encoded(args: tuple[Any, ...]) -> bytes:
    text, coding = _arguments(args, 2)
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise Damaged("a text is encoded otherwise than by latin1")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise Damaged("a text has letters that latin1 has not") from error


def _arguments(args: tuple[Any, ...], least: int) -> tuple[Any, ...]:
    if len(args) < least:
        raise Damaged(f"a call has {len(args)} arguments; {least} are needed")
    return args[:least]


# What is called: by functions of ours.
CALLS: dict[Named, Callable[[tuple[Any, ...]], Any]] = {
    Named("torch._utils", "_rebuild_tensor"): _tensor,
    Named("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Named("torch._utils", "_rebuild_tensor_v3"): _tensor_of_type,
    Named("torch._utils", "_rebuild_parameter"): _parameter,
    Named("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    Named("torch._tensor", "_rebuild_from_type_v2"): _subclass,
    Named("torch.nn.parameter", "Parameter"): _parameter,
    Named("collections", "OrderedDict"): _mapping,
    Named("builtins", "set"): _several,
    Named("__builtin__", "set"): _several,
    Named("_codecs", "encode"): _encoded,
}
# What is a word in a call: types of storages, of numbers and of tensors.
WORDS = (
    frozenset(Named(module, name) for module in ("torch", "torch.cuda") for name in STORAGES)
    | frozenset(Named("torch", name) for name in DTYPES)
    | UNTYPED
    | PLAIN_TENSORS
)
# What training programs keep beside the tensors. It is never called, and never a part of the answer.
INERT = frozenset(
    Named(module, name)
    for module, names in {
        "torch": "Size device strided",
        "torch.serialization": "_get_layout",
        "torch.torch_version": "TorchVersion",
        "torch.nn.modules.container": "ParameterDict",
        "numpy": "dtype ndarray",
        "numpy.core.multiarray": "scalar _reconstruct",
        "numpy._core.multiarray": "scalar _reconstruct",
        "collections": "defaultdict Counter",
        "argparse": "Namespace",
        "pathlib": "PosixPath WindowsPath PurePosixPath",
        "typing": "Any",
        "builtins": "list dict int float complex slice",
        "__builtin__": "list dict int float complex slice long unicode",
        "omegaconf.dictconfig": "DictConfig",
        "omegaconf.listconfig": "ListConfig",
        "omegaconf.base": "ContainerMetadata Metadata",
        "omegaconf.nodes": "AnyNode StringNode IntegerNode FloatNode BooleanNode",
        "pytorch_lightning.callbacks": "ModelCheckpoint EarlyStopping",
        "pytorch_lightning.callbacks.model_checkpoint": "ModelCheckpoint",
        "pytorch_lightning.callbacks.early_stopping": "EarlyStopping",
        "pytorch_lightning.utilities.parsing": "AttributeDict",
        "lightning.pytorch.callbacks.model_checkpoint": "ModelCheckpoint",
    }.items()
    for name in names.split()
)
