"""The two layouts in which PyTorch saves a pickle and the numbers beside it: a zip archive, and one file in a row.

Which one it is, the first bytes say, never the name. The archive is read from its own directory, and every number of
that directory is compared with the file: so there is one reading of it, and no second one for another program.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import Any, BinaryIO

from sfumato.weights.header import ITEM_BYTES
from sfumato.weights.pickle_machine import MOST_BYTES
from sfumato.weights.pickle_opcodes import read_pickle
from sfumato.weights.pickle_values import Damaged, Storage

ZIP = b"PK\x03\x04"
MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER
PROTOCOL = 1001  # torch.serialization.PROTOCOL_VERSION
MOST_MEMBERS = 100_000
LARGE = 0xFFFFFFFF  # stands in a zip's 32-bit field for "see the 64-bit one"
END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR = struct.Struct("<4sLQL")
CENTRAL = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
DESCRIBED = 0x0008  # sizes stand behind the member
CODES = ("code/", "constants.pkl")  # what a TorchScript archive has


@dataclass(frozen=True)
class Member:
    """A file in an archive: where its bytes begin, how many they are, and where the next thing may begin."""

    start: int
    size: int


@dataclass(frozen=True)
class Unpacked:
    """A pickle's value, and for each storage that it refers to its place in the file: first byte."""

    value: Any
    places: Mapping[str, int]


def unpack(file: BinaryIO, size: int) -> Unpacked:
    """Read the pickle of a file and find its storages. Raises Damaged or UnsafeCheckpointError."""
    start = file.read(4)
    file.seek(0)
    return unpack_archive(file, size) if start == ZIP else unpack_row(file, size)


def unpack_archive(file: BinaryIO, size: int) -> Unpacked:
    """Read a zip archive as torch.save writes it: members stored as they are, one data.pkl, storages in data/."""
    members = read_directory(file, size)
    pickles = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    if any(name.partition("/")[2].startswith(CODES) for name in members):
        raise Damaged("it is a TorchScript program, which is code; get the model's weights instead")
    if len(pickles) != 1:
        raise Damaged(
            f"a zip archive with {len(pickles)} data.pkl; a checkpoint has one. If it holds a model, unpack it"
        )
    root = pickles[0].removesuffix("data.pkl")
    order = members.get(root + "byteorder")
    if order is not None and order.size < 16 and read_member(file, order) != b"little":
        raise Damaged("its numbers have their bytes in the other order (big-endian); save it on another machine")
    if members[pickles[0]].size > MOST_BYTES:
        raise Damaged(f"its pickle has {members[pickles[0]].size:,} bytes; at most {MOST_BYTES:,} are read")
    value, storages = read_pickle(BytesIO(read_member(file, members[pickles[0]])))
    places = {}
    for key, storage in storages.items():
        member = members.get(f"{root}data/{key}")
        if member is None or member.size != storage.size:
            there = "none are there" if member is None else f"{member.size:,} are there"
            raise Damaged(f"the storage {key[:60]!r} should have {storage.size:,} bytes and {there}; download it again")
        places[key] = member.start
    return Unpacked(value, places)


def read_member(file: BinaryIO, member: Member) -> bytes:
    """Read a member's bytes."""
    file.seek(member.start)
    return file.read(member.size)


def read_directory(file: BinaryIO, size: int) -> dict[str, Member]:
    """Read a zip's directory, compared with its members: stored, apart from each other, named once."""
    start, length, count = find_directory(file, size)
    file.seek(start)
    table = file.read(length)
    members: dict[str, Member] = {}
    taken: list[tuple[int, int]] = []
    position = 0
    for _ in range(count):
        if position + CENTRAL.size > len(table):
            raise Damaged("its zip directory ends early; download it again")
        fields = CENTRAL.unpack_from(table, position)
        flags, method, packed, plain = fields[3], fields[4], fields[8], fields[9]
        names, extras, comments, offset = fields[10], fields[11], fields[12], fields[16]
        rest = position + CENTRAL.size
        name = table[rest : rest + names].decode("utf-8", "replace")
        extra = table[rest + names : rest + names + extras]
        position = rest + names + extras + comments
        if fields[0] != b"PK\x01\x02" or position > len(table):
            raise Damaged("its zip directory is damaged; download it again")
        plain, packed, offset = large_fields(extra, plain, packed, offset)
        if method or flags & ~(DESCRIBED | 0x0800) or packed != plain:
            raise Damaged(f"the member {name[:60]!r} of its zip is packed or encrypted; torch.save stores it plain")
        if name in members:
            raise Damaged(f"two members of its zip are called {name[:60]!r}")
        begin = check_local(file, name, (flags, plain), offset, start)
        members[name] = Member(begin, plain)
        taken.append((offset, begin + plain))
    if position != len(table):
        raise Damaged("its zip directory has more than its members")
    taken.sort()
    if not taken or taken[0][0] != 0 or any(a[1] > b[0] for a, b in pairwise(taken)):
        raise Damaged("members of its zip overlap, or something lies before the first")
    return members


def find_directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return where a zip's directory begins, its length and its number of members; it must reach the file's end."""
    if size < END.size:
        raise Damaged("too short for a zip archive; download it again")
    file.seek(size - END.size)
    signature, disk, first, here, count, length, start, comment = END.unpack(file.read(END.size))
    if signature != b"PK\x05\x06":
        raise Damaged("its zip has no end; the download did not finish, or something was put behind it: get it again")
    end = size - END.size
    if end >= LOCATOR.size:
        file.seek(end - LOCATOR.size)
        mark, _, place, disks = LOCATOR.unpack(file.read(LOCATOR.size))
        if mark == b"PK\x06\x07":
            end = end - LOCATOR.size - END64.size
            if place != end or disks != 1:
                raise Damaged("the end of its zip is damaged; download it again")
            file.seek(end)
            fields = END64.unpack(file.read(END64.size))
            if fields[0] != b"PK\x06\x06" or fields[1] != END64.size - 12:
                raise Damaged("the end of its zip is damaged; download it again")
            disk, first, here, count, length, start = fields[4:10]
    if comment or disk or first or here != count or count > MOST_MEMBERS or start + length != end:
        raise Damaged("its zip directory does not fill the end of the file, or has too many members")
    if length > MOST_BYTES:
        raise Damaged(f"its zip directory has {length:,} bytes")
    return start, length, count


def large_fields(extra: bytes, plain: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Return sizes and offset, taken from the 64-bit extra field where the short ones refer to it."""
    values = [plain, packed, offset]
    wanted = [place for place, value in enumerate(values) if value == LARGE]
    position = 0
    while wanted and position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            if length < 8 * len(wanted) or position + 4 + length > len(extra):
                break
            for number, place in enumerate(wanted):
                values[place] = struct.unpack_from("<Q", extra, position + 4 + 8 * number)[0]
            return values[0], values[1], values[2]
        position += 4 + length
    if wanted:
        raise Damaged("a member of its zip has no size; download it again")
    return plain, packed, offset


def check_local(file: BinaryIO, name: str, told: tuple[int, int], offset: int, limit: int) -> int:
    """Compare a member's own header with the directory; return where its bytes begin."""
    flags, size = told
    file.seek(min(offset, limit))
    header = file.read(LOCAL.size)
    if len(header) < LOCAL.size or not header.startswith(ZIP):
        raise Damaged(f"the member {name[:60]!r} is not where its zip says; download it again")
    fields = LOCAL.unpack(header)
    packed, plain, names, extras = fields[7], fields[8], fields[9], fields[10]
    own = file.read(names + extras)
    begin: int = offset + LOCAL.size + names + extras
    if fields[2] != flags or fields[3] or own[:names].decode("utf-8", "replace") != name:
        raise Damaged(f"the member {name[:60]!r} of its zip is told in two ways")
    if (packed, plain) != (0, 0) or not flags & DESCRIBED:
        plain, packed, _ = large_fields(own[names:], plain, packed, 0)
        if plain != size or packed != size:
            raise Damaged(f"the member {name[:60]!r} of its zip is told with two sizes")
    if begin + size > limit:
        raise Damaged(f"the member {name[:60]!r} reaches beyond its zip; download it again")
    return begin


def unpack_row(file: BinaryIO, size: int) -> Unpacked:
    """Read five pickles and then the storages one after the other, as torch.save wrote until 1.6."""
    opening, _ = read_pickle(file)
    if opening != MAGIC or isinstance(opening, bool):
        raise Damaged("a pickle that torch.save did not write, so it holds no weights; get the model as .safetensors")
    (protocol, _), (system, _) = read_pickle(file), read_pickle(file)
    if protocol != PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Damaged("it is of another version, or its numbers have their bytes in the other order")
    value, storages = read_pickle(file)
    keys, _ = read_pickle(file)
    if not isinstance(keys, list) or sorted(map(repr, keys)) != sorted(map(repr, storages)):
        raise Damaged("its list of storages is not that of its tensors")
    places = {}
    position = file.tell()
    for key in keys:
        storage = storages[key]
        check_count(file, position, storage)
        places[key] = position + 8
        position += 8 + storage.size
    if position > size:
        raise Damaged(f"its tensors need {position:,} bytes and the file has {size:,}; download it again")
    if position < size:
        raise Damaged(f"{size - position:,} bytes follow its last tensor; they belong to nothing")
    return Unpacked(value, places)


def check_count(file: BinaryIO, position: int, storage: Storage) -> None:
    """Compare the number of elements before a storage's bytes with what the pickle said."""
    file.seek(position)
    found = file.read(8)
    if len(found) < 8:
        raise Damaged("it ends before its last tensor; download it again")
    count = int.from_bytes(found, "little", signed=True)
    if storage.dtype is None or count * ITEM_BYTES[storage.dtype] != storage.size:
        raise Damaged(f"the storage {storage.key[:60]!r} is told with two sizes")
