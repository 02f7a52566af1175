"""The header of a safetensors file, right and wrong."""

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from weights_files import entry, table_of, write_raw

from sfumato.errors import ModelFileError
from sfumato.weights.files import TensorFile, open_file
from sfumato.weights.header import HEADER_LIMIT, TENSOR_LIMIT, read_header

GOOD = {"a": entry("F32", [2, 3], 0, 24), "b": entry("F16", [4], 24, 32)}
DATA = bytes(32)


def test_a_file_of_the_library_is_read_back_exactly(tmp_path: Path) -> None:
    made = {
        "x": torch.randn(3, 4),
        "half": torch.randn(5).half(),
        "brain": torch.randn(2, 2).bfloat16(),
        "eight": torch.randn(8).to(torch.float8_e4m3fn),
        "whole": torch.arange(6),
        "flag": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
    }
    save_file(made, tmp_path / "a.safetensors", metadata={"format": "pt", "who": "me"})
    found = open_file(tmp_path / "a.safetensors")
    assert set(found) == set(made)
    assert dict(found.metadata) == {"format": "pt", "who": "me"}
    for name, tensor in made.items():
        assert found.infos[name].shape == tuple(tensor.shape)
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].flatten().view(torch.uint8), tensor.flatten().view(torch.uint8))


def wrong(**changes: Any) -> dict[str, Any]:
    """A header of one tensor of 8 bytes, with one thing changed."""
    return {"a": {**entry("F32", [2], 0, 8), **changes}}


WRONG_HEADERS: dict[str, tuple[object, bytes, str]] = {
    "a gap": ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 8, 12)}, bytes(12), "gap"),
    "a gap at the start": ({"a": entry("F32", [1], 4, 8)}, bytes(8), "gap"),
    "an overlap": ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [1], 4, 8)}, bytes(8), "overlaps"),
    "twice the same bytes": ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 0, 8)}, bytes(8), "overlaps"),
    "too few bytes for the shape": (wrong(shape=[3]), bytes(8), "needs 12 bytes"),
    "too many bytes for the shape": (wrong(shape=[1]), bytes(8), "needs 4 bytes"),
    "a shape whose product overflows": (wrong(shape=[2**40, 2**40]), bytes(8), "needs"),
    "an unknown type": (wrong(dtype="F31"), bytes(8), "type 'F31'"),
    "a type that is no text": (wrong(dtype=[1]), bytes(8), "type"),
    "a negative count": (wrong(shape=[-2]), bytes(8), "shape"),
    "a fractional count": (wrong(shape=[2.0]), bytes(8), "shape"),
    "a count that is true": (wrong(shape=[True, 2]), bytes(8), "shape"),
    "an enormous count": (wrong(shape=[2**63]), bytes(8), "shape"),
    "more dimensions than anything has": (wrong(shape=[1] * 20 + [2]), bytes(8), "shape"),
    "a shape that is a number": (wrong(shape=2), bytes(8), "shape"),
    "falling offsets": (wrong(data_offsets=[8, 0]), bytes(8), "offsets"),
    "three offsets": (wrong(data_offsets=[0, 4, 8]), bytes(8), "offsets"),
    "negative offsets": (wrong(data_offsets=[-8, 0]), bytes(8), "offsets"),
    "an unknown property": (wrong(device="cuda"), bytes(8), "described by"),
    "a missing property": ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8), "described by"),
    "an entry that is a list": ({"a": [1, 2]}, bytes(8), "described by"),
    "metadata with numbers": ({"__metadata__": {"a": 1}}, b"", "metadata"),
    "metadata that is a list": ({"__metadata__": ["a"]}, b"", "metadata"),
    "a list for a header": (b"[1, 2]      ", b"", "not a model file"),
    "a name twice": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":1}', bytes(4), "occurs twice"),
    "NaN": (b'{"a": NaN}      ', b"", "NaN"),
    "broken JSON": (b'{"a": {"dtype": ', b"", "not valid"),
    "broken UTF-8": (b'{"\xff\xfe": 1}      ', b"", "not valid"),
    "nesting without end": (b'{"a":' + b"[" * 100_000, b"", "not valid"),
    "a number of ten thousand digits": (b'{"a": ' + b"9" * 10_000 + b"}", b"", "not valid"),
    "bytes after the last tensor": (GOOD, DATA + b"more", "4 bytes follow"),
    "a byte less than promised": (GOOD, DATA[:-1], "truncated"),
    "no data at all": (GOOD, b"", "truncated"),
}


@pytest.mark.parametrize("case", WRONG_HEADERS)
def test_a_header_that_contradicts_itself_or_its_file_is_refused(tmp_path: Path, case: str) -> None:
    header, data, says = WRONG_HEADERS[case]
    path = write_raw(tmp_path / "a.safetensors", header, data)
    with pytest.raises(ModelFileError, match=says) as caught:
        open_file(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_a_header_longer_than_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.safetensors", b"{}" + b" " * 600, length=HEADER_LIMIT + 1)
    with pytest.raises(ModelFileError, match="claims a header of"):
        read_header(path)


def test_a_header_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.safetensors", b"{}" + b" " * 600, length=5000)
    with pytest.raises(ModelFileError, match="truncated"):
        read_header(path)


def test_more_tensors_than_the_limit_are_refused(tmp_path: Path) -> None:
    table = {f"{index}": entry("U8", [0], 0, 0) for index in range(TENSOR_LIMIT + 1)}
    with pytest.raises(ModelFileError, match=f"at most {TENSOR_LIMIT:,}"):
        read_header(write_raw(tmp_path / "a.safetensors", table))


def test_a_file_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    whole = save({"a": torch.arange(3.0), "b": torch.arange(2)}, metadata={"k": "v"})
    path = tmp_path / "a.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            open_file(path)
    path.write_bytes(whole)
    assert set(open_file(path)) == {"a", "b"}


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 400), change=st.binary(min_size=1, max_size=6), cut=st.booleans())
def test_a_mutated_file_is_read_or_refused_with_our_error(tmp_path: Path, place: int, change: bytes, cut: bool) -> None:
    whole = save({"weight": torch.ones(2, 3), "bias": torch.zeros(3, dtype=torch.float16)}, metadata={"k": "v"})
    place %= len(whole)
    mutated = whole[:place] + change + whole[place + (len(change) if cut else 0) :]
    path = tmp_path / "mutated.safetensors"
    path.write_bytes(mutated)
    try:
        tensors = open_file(path)
        for name in tensors:
            assert tensors[name].numel() == tensors.infos[name].count
    except ModelFileError:
        pass


def test_a_header_that_we_accept_the_library_accepts_too(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.safetensors", {**GOOD, "z": entry("F32", [0, 9], 32, 32)}, DATA)
    assert {name: tuple(tensor.shape) for name, tensor in open_file(path).items()} == {
        "a": (2, 3),
        "b": (4,),
        "z": (0, 9),
    }


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(4)}, path)
    tensors = open_file(path)
    save_file({"a": torch.ones(5)}, path)
    with pytest.raises(ModelFileError, match="changed while"):
        tensors["a"]


def test_two_files_with_the_same_tensor_do_not_make_one_model(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_raw(tmp_path / name, table_of({"w": (2,)}), bytes(4))
    with pytest.raises(ModelFileError, match="is also in a"):
        TensorFile([read_header(tmp_path / "a"), read_header(tmp_path / "b")])


def test_a_zip_with_a_length_that_looks_right_is_still_not_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"PK\x03\x04" + struct.pack("<I", 0) + b"x" * 100)
    with pytest.raises(ModelFileError, match="pickle"):
        open_file(path)
