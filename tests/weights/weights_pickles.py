"""Pickles written by hand: what strangers put into checkpoints. Each writes where it would have run, if it runs."""

import io
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

# What attackers name, by module and name: listed by scanners, and found later by those who went round them.
GLOBALS = (
    "os system",
    "posix system",
    "nt system",
    "subprocess Popen",
    "subprocess check_output",
    "builtins eval",
    "builtins exec",
    "builtins compile",
    "builtins getattr",
    "builtins __import__",
    "builtins open",
    "__builtin__ eval",
    "__builtin__ apply",
    "importlib import_module",
    "runpy run_path",
    "pty spawn",
    "socket create_connection",
    "shutil rmtree",
    "pkgutil resolve_name",
    "torch.utils.collect_env run",
    "multiprocessing.util spawnv_passfds",
    "webbrowser open",
    "operator attrgetter",
    "functools partial",
    "types CodeType",
    "numpy core._internal.sys.modules",
    "numpy.__builtins__ eval",
    "numpy load",
    "numpy.testing._private.utils runstring",
    "torch load",
    "torch.storage _load_from_bytes",
    "torch.hub load",
    "torch.jit load",
    "torch._utils _rebuild_sparse_tensor",
    "torch._utils _rebuild_qtensor",
    "torch._utils _rebuild_wrapper_subclass",
    "torch._utils _rebuild_meta_tensor_no_storage",
    "torch._dynamo.guards GuardBuilder.get",
    "copyreg _reconstructor",
    "copy_reg _reconstructor",
    "pickle loads",
    "_pickle loads",
    "cloudpickle.cloudpickle _make_function",
    "pydoc pipepager",
    "code InteractiveInterpreter.runcode",
    "timeit timeit",
    "ctypes CDLL",
    "asyncio.unix_events _UnixSubprocessTransport._start",
    "lib2to3.pgen2.pgen ParserGenerator.make_label",
    "collections OrderedDict.__class__",
)


def text(value: str) -> bytes:
    """A short text, as protocol 4 writes it."""
    return b"\x8c" + bytes([len(value.encode())]) + value.encode()


def spelled(name: str, style: str) -> bytes:
    """Operations that would call a global with the text "touch canary", in one of the ways that pickles have."""
    module, function = name.split(" ")
    word = f"c{module}\n{function}\n".encode()
    stacked = text(module) + text(function) + b"\x93"
    argument = text("touch canary")
    return {
        "GLOBAL": b"\x80\x02" + word + b"(" + argument + b"tR.",
        "protocol 0": word + b"(S'touch canary'\ntR.",
        "STACK_GLOBAL": b"\x80\x04" + stacked + argument + b"\x85R.",
        "memoised": b"\x80\x04"
        + text(module)
        + b"\x94"
        + text(function)
        + b"\x940h\x00h\x01\x93"
        + argument
        + b"\x85R.",
        "INST": b"\x80\x02(" + argument + f"i{module}\n{function}\n.".encode(),
        "OBJ": b"\x80\x02(" + word + argument + b"o.",
        "NEWOBJ": b"\x80\x02" + word + argument + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04" + stacked + argument + b"\x85}\x92.",
        "BUILD": b"\x80\x02}" + b"(" + argument + word + b"u" + word + b"b.",
        "in a key": b"\x80\x02}" + word + b"K\x01s.",
        "in a persistent id": b"\x80\x02(X\x07\x00\x00\x00storage"
        + word
        + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.",
        "in a tensor": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + word + b"K\x00))\x89}tR.",
    }[style]


STYLES = (  # each is written alone, in a zip and in a row
    "GLOBAL",
    "protocol 0",
    "STACK_GLOBAL",
    "memoised",
    "INST",
    "OBJ",
    "NEWOBJ",
    "NEWOBJ_EX",
    "BUILD",
    "in a key",
    "in a persistent id",
    "in a tensor",
)


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    room = io.BytesIO()
    with zipfile.ZipFile(room, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)
    return room.getvalue()


def row(number: int, evil: bytes) -> bytes:
    """The old layout of torch.save, with another pickle in one of its five places."""
    pickles = [
        pickle.dumps(0x1950A86A20F9469CFC6C, 2),
        pickle.dumps(1001, 2),
        pickle.dumps({"little_endian": True}, 2),
        pickle.dumps({}, 2),
        pickle.dumps([], 2),
    ]
    return b"".join([*pickles[:number], evil, *pickles[number + 1 :]])


def saved(*, new: bool = True) -> bytes:
    """A good file."""
    room = io.BytesIO()
    torch.save({"a": torch.arange(6.0).view(2, 3)}, room, _use_new_zipfile_serialization=new)
    return room.getvalue()


def unsafe_files() -> Iterator[tuple[str, bytes, str]]:
    """Every malicious file: its name, its bytes, and the global that the refusal has to name."""
    for name in GLOBALS:
        yield f"{name} alone", spelled(name, "GLOBAL"), name
        yield f"{name} in a zip", archive(("m/data.pkl", spelled(name, "STACK_GLOBAL"))), name
    for style in STYLES:
        yield f"{style} alone", spelled("os system", style), "os system"
        yield f"{style} in a zip", archive(("m/data.pkl", spelled("os system", style))), "os system"
        yield f"{style} in a row", row(3, spelled("os system", style)), "os system"
    for number in range(5):
        yield f"pickle {number} of the row", row(number, spelled("os system", "GLOBAL")), "os system"
    good = saved()
    yield "a bad row with a good zip behind it", row(3, spelled("os system", "GLOBAL")) + good, "os system"
    for code, form in ((b"\x82", "<B"), (b"\x83", "<H"), (b"\x84", "<I")):
        yield f"extension {form}", b"\x80\x02" + code + struct.pack(form, 7) + b".", "extension code 7"
    class_ = b"\x80\x02(ccollections\nOrderedDict\no."
    yield "OBJ of a class that we know", class_, "collections OrderedDict"
    yield "NEWOBJ_EX of a class that we know", b"\x80\x04ccollections\nOrderedDict\n)}\x92.", "collections OrderedDict"


def wrong_files() -> Iterator[tuple[str, bytes, str]]:
    """Files that name nothing foreign and are still none to be read: name, bytes, and what the refusal says."""
    good, pkl = saved(), b"\x80\x02}."
    tensor = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
    storage = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu%stQ"
    four = storage % b"K\x04"
    data = ("m/data/0", bytes(16))

    def checkpoint(operations: bytes, *more: tuple[str, bytes]) -> bytes:
        return archive(("m/data.pkl", tensor + operations), *more)

    yield "two pickles", archive(("m/data.pkl", pkl), ("n/data.pkl", pkl)), "2 data.pkl"
    yield "a packed zip", archive(("m/data.pkl", pkl), compression=zipfile.ZIP_DEFLATED), "packed"
    yield "TorchScript", archive(("m/data.pkl", pkl), ("m/code/__torch__.py", b"")), "TorchScript"
    yield "a zip of something else", archive(("a.txt", b"x")), "0 data.pkl"
    yield "something behind the zip", good + b"x" * 100, "no end"
    yield "something before the zip's first member", b"PK\x03\x04" + good, "not where|overlap"
    yield "big-endian", archive(("m/data.pkl", pkl), ("m/byteorder", b"big")), "other order"
    yield "a storage that is not there", checkpoint(four + b"K\x00K\x02\x85K\x01\x85\x89}tR."), "none are there"
    yield (
        "a storage that is short",
        checkpoint(four + b"K\x00K\x02\x85K\x01\x85\x89}tR.", ("m/data/0", b"")),
        "0 are there",
    )
    yield "a tensor beyond", checkpoint(four + b"K\x00K\x05\x85K\x01\x85\x89}tR.", data), "reaches beyond"
    yield "strides beyond", checkpoint(four + b"K\x00K\x02\x85K\x04\x85\x89}tR.", data), "reaches beyond"
    yield "an offset beyond", checkpoint(four + b"K\x04K\x01\x85K\x01\x85\x89}tR.", data), "reaches beyond"
    yield "a negative stride", checkpoint(four + b"K\x00K\x02\x85J\xff\xff\xff\xff\x85\x89}tR.", data), "no counts"
    yield "a huge size", checkpoint(four + b"K\x00\x8a\x09\0\0\0\0\0\0\0\x80\0\x85K\x01\x85\x89}tR.", data), "no counts"
    big = b"\x8a\x05\0\0\0\0\1"  # 2^32
    wide = checkpoint(four + b"K\x00" + big + big + b"\x86K\x00K\x00\x86\x89}tR.", data)
    yield "one number repeated", wide, "repeated|no counts"
    yield "no tensors", archive(("m/data.pkl", pkl)), "no tensors"
    yield "a huge whole number", archive(("m/data.pkl", b"\x80\x02\x8b\xff\xff\xff\x7f.")), "whole number of"
    yield "a huge text", archive(("m/data.pkl", b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x00.")), "longer than"
    yield "without an end", archive(("m/data.pkl", b"\x80\x02}")), "in the middle"
    yield "an empty stack", archive(("m/data.pkl", b"\x80\x02R.")), "not there"
    yield "a persistent id in text", archive(("m/data.pkl", b"P../../etc/passwd\n.")), "no tensor's storage"
    yield "a call of a type", archive(("m/data.pkl", b"\x80\x02ctorch\nFloatStorage\n)R.")), "type of numbers"
    deep = b"\x80\x02" + b"]" * 5000 + tensor[2:] + four + b"K\x00K\x02\x85K\x01\x85\x89}tR" + b"a" * 5000 + b"."
    yield "5,000 lists in each other", archive(("m/data.pkl", deep), data), "nested|no tensors"
    yield (
        "a dictionary of itself",
        archive(("m/data.pkl", b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.")),
        "no tensors|nested",
    )
    yield "a tar", b"m".ljust(257, b"\0") + b"ustar" + bytes(250), "tar|not a model"


def write_all(folder: Path, files: Iterator[tuple[str, bytes, str]]) -> dict[str, tuple[Path, str]]:
    """Write files with names of every kind; what they are, their bytes say."""
    suffixes = (".ckpt", ".pt", ".bin", ".pth", ".safetensors", "")
    found = {}
    for number, (name, content, says) in enumerate(files):
        path = folder / f"{number}{suffixes[number % len(suffixes)]}"
        path.write_bytes(content)
        found[name] = (path, says)
    return found
