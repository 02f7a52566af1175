"""Damaged files by the thousand: nothing but ModelFileError, quickly, from headers and from whole files."""

import io
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from weights_pickles import saved

from sfumato.errors import ModelFileError
from sfumato.weights.files import DTYPES, TensorFile
from sfumato.weights.header import read_header
from sfumato.weights.pickle_convert import convert

SEED = 20_260_101
# What damages a header in ways that a flipped bit does not.
WORDS = (b"0", b"-1", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"9223372036854775808", b"[[[[", b"\xff")
WORDS += (b'"dtype"', b'"shape"', b'"data_offsets"', b'"F16"', b'"__metadata__"', b",", b":", b"}", b"]", b"\\ud800")


def mutated(rng: random.Random, content: bytes, first: int, last: int) -> bytes:
    """A file with one to four changes between two places: bits, bytes, words, repeats, cuts."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(first, max(first + 1, min(last, len(data))))
        kind = rng.randrange(6)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place] = rng.randrange(256)
        elif kind == 2:
            word = rng.choice(WORDS)
            data[place : place + rng.choice((0, len(word)))] = word
        elif kind == 3:
            del data[place : place + rng.randint(1, 16)]
        elif kind == 4:
            data[place:place] = data[place : place + rng.randint(1, 32)]
        elif rng.random() < 0.2:
            del data[place:]
        data = data or bytearray(b"x")
    return bytes(data)


def safetensors_file() -> bytes:
    tensors = {
        "a.weight": torch.ones(2, 3),
        "b": torch.zeros(4, dtype=torch.float16),
        "c": torch.ones((), dtype=torch.int64),
    }
    return save(tensors, {"format": "pt"})


def read_headers(path: Path, count: int) -> int:
    """Read so many mutated headers, some with their length made right again; return how many were refused."""
    rng, good = random.Random(SEED), safetensors_file()
    length = int.from_bytes(good[:8], "little")
    refused = 0
    for _ in range(count):
        body = mutated(rng, good[8 : 8 + length], 0, length) if rng.random() < 0.7 else good[8 : 8 + length]
        stated = (
            len(body) if rng.random() < 0.8 else rng.choice((0, 1, length - 1, length + 1, 2**63, rng.getrandbits(64)))
        )
        content = stated.to_bytes(8, "little") + body + good[8 + length :]
        path.write_bytes(content)
        started = time.process_time()
        try:
            header = read_header(path)
            assert all(info.end + header.start <= len(content) for info in header.tensors.values())
        except ModelFileError:
            refused += 1
        assert time.process_time() - started < 0.5
    return refused


def read_files(folder: Path, count: int) -> int:
    """Read so many mutated files of each container to the last number; return how many were refused."""
    rng, refused = random.Random(SEED), 0
    goods = [safetensors_file(), saved(new=True), saved(new=False), other_pickle()]
    path = folder / "file"
    for number in range(count):
        good = goods[number % len(goods)]
        content = mutated(rng, good, 0, len(good))
        path.write_bytes(content)
        out = io.BytesIO()
        try:
            if number % len(goods):
                convert(path, out)
                path.write_bytes(out.getvalue())
            read_all(path)
        except ModelFileError:
            refused += 1
    return refused


def read_all(path: Path) -> None:
    tensors = TensorFile([read_header(path)])
    for name, info in tensors.infos.items():
        tensor = tensors[name]
        assert tuple(tensor.shape) == info.shape and tensor.dtype == DTYPES[info.dtype]
        assert tensors.map(name).view(-1).view(torch.uint8).equal(tensor.view(-1).view(torch.uint8))


def other_pickle() -> bytes:
    room = io.BytesIO()
    torch.save(
        {"state_dict": {"w": torch.ones(4, 4).T[:, 1:3], "s": torch.nn.Parameter(torch.ones(2))}, "n": [1.5, None]},
        room,
    )
    return room.getvalue()


@pytest.fixture
def in_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for files that are written a million times: in memory where the system has such a place."""
    shared = Path("/dev/shm")
    root = tmp_path_factory.mktemp("fuzz")
    folder = shared / f"sfumato-{os.getpid()}-{root.name}" if shared.is_dir() else root
    folder.mkdir(exist_ok=True)
    yield folder
    shutil.rmtree(folder)


FUZZ: dict[str, tuple[Callable[[Path, int], int], int, int]] = {
    "headers": (lambda folder, count: read_headers(folder / "file", count), 20_000, 1_000_000),
    "files": (read_files, 1_000, 50_000),
}


@pytest.mark.parametrize("what", FUZZ)
def test_damaged_files_are_refused_and_nothing_else_happens(in_memory: Path, what: str) -> None:
    run, count, _ = FUZZ[what]
    assert count // 3 < run(in_memory, count)  # most changes do matter


@pytest.mark.slow
@pytest.mark.parametrize("what", FUZZ)
def test_very_many_damaged_files_are_refused_and_nothing_else_happens(in_memory: Path, what: str) -> None:
    run, _, count = FUZZ[what]
    assert count // 3 < run(in_memory, count)


@pytest.mark.parametrize("new", [None, True, False], ids=["safetensors", "zip", "row"])
def test_a_file_that_ends_early_is_refused_wherever_it_ends(tmp_path: Path, new: bool | None) -> None:
    good = safetensors_file() if new is None else saved(new=new)
    path = tmp_path / "cut"
    for end in range(0, len(good), 1 if new is None else 7):
        path.write_bytes(good[:end])
        with pytest.raises(ModelFileError):
            if new is None:
                read_header(path)
            else:
                convert(path, io.BytesIO())


def test_a_header_of_too_many_tensors_is_refused_without_reading_them(tmp_path: Path) -> None:
    body = json.dumps({f"t{i}": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} for i in range(50_001)}).encode()
    (tmp_path / "a").write_bytes(len(body).to_bytes(8, "little") + body)
    with pytest.raises(ModelFileError, match="at most 50,000"):
        read_header(tmp_path / "a")
