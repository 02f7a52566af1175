"""Sharded files, and what lies where a model file should be."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sfumato.errors import ModelFileError
from sfumato.weights.files import check_finite, open_file, read_json
from sfumato.weights.load import load

FOREIGN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file"),
    "a few bytes": (b"abc", "too few|not a model file"),
    "a web page": (b"<!DOCTYPE html><html>Please log in</html>" * 9, "an HTML page"),
    "a web page after blank lines": (b"\n\n  <html><body>404</body></html>", "an HTML page"),
    "an XML error of a store": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an HTML page"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer"),
    "an old pickle": (b"\x80\x02}q\x00(X\x0a\x00\x00\x00state_dict" + bytes(99), "a pickle"),
    "a GGUF": (b"GGUF\x03\x00\x00\x00" + bytes(99), "a GGUF file"),
    "an HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
    "a gzip": (b"\x1f\x8b\x08\x00" + bytes(99), "a gzip archive"),
    "a 7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "a 7-Zip archive"),
    "a RAR": (b"Rar!\x1a\x07" + bytes(99), "a RAR archive"),
    "a JSON": (b'{"weight_map": {}}' + b" " * 99, "a JSON text"),
    "zeros": (bytes(4096), "a file of zeros"),
    "noise": (b"\x07\x11\x93\x54" * 99, "not a model file"),
    "text": (b"stable diffusion\n" * 99, "not a model file"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_no_model_file_is_called_by_its_name(tmp_path: Path, case: str) -> None:
    content, says = FOREIGN[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=says) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_archives_and_pictures_made_by_their_own_programs_are_called_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ModelFileError, match="zip"):
        open_file(path)
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("a"), io.BytesIO())
    with pytest.raises(ModelFileError, match="a tar archive"):
        open_file(path)
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ModelFileError, match="a NumPy array"):
        open_file(tmp_path / "a.npy")
    for kind, what in (("PNG", "a PNG picture"), ("JPEG", "a JPEG picture"), ("WEBP", "a WebP picture")):
        Image.new("RGB", (8, 8)).save(path, kind)
        with pytest.raises(ModelFileError, match=what):
            open_file(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        open_file(tmp_path / "a.safetensors")
    with pytest.raises(ModelFileError, match="a folder"):
        open_file(tmp_path)


def shards(folder: Path) -> Path:
    """Two shards and their index."""
    save_file({"a": torch.ones(2)}, folder / "m-00001-of-00002.safetensors")
    save_file({"b": torch.full((3,), 2.0)}, folder / "m-00002-of-00002.safetensors")
    places = {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"}
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 20}, "weight_map": places}))
    return index


def test_shards_read_as_one_file(tmp_path: Path) -> None:
    found = open_file(shards(tmp_path))
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"a": [1, 1], "b": [2, 2, 2]}
    assert [path.name for path in found.paths] == ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ({"a": "../m-00001-of-00002.safetensors"}, "beside the index"),
        ({"a": "/etc/passwd"}, "beside the index"),
        ({"a": "C:\\weights"}, "beside the index"),
        ({"a": ".."}, "beside the index"),
        ({"a": "x\0y"}, "beside the index"),
        ({"a": 3}, "beside the index"),
        ({"a": "m-00001-of-00002.safetensors", "b": "m-00009-of-00002.safetensors"}, "1 of 2 shards are missing"),
        ({"a": "m-00001-of-00002.safetensors", "c": "m-00002-of-00002.safetensors"}, "does not fit its shards"),
        ({"a": "m-00001-of-00002.safetensors", "q": "m-00001-of-00002.safetensors"}, "does not fit its shards"),
        ({}, "no weight_map"),
        ([], "no weight_map"),
    ],
)
def test_an_index_that_leads_astray_is_refused(tmp_path: Path, places: object, says: str) -> None:
    index = shards(tmp_path)
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(ModelFileError, match=says):
        open_file(index)


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": 1e', "\x00", "[" * 100_000, '{"a": ' + "9" * 10_000 + "}"])
def test_a_configuration_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"config\.json"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_numbers_that_are_not_finite_are_counted_and_large_ones_are_not_mistaken_for_them(dtype: torch.dtype) -> None:
    large = torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)  # whose sum overflows
    check_finite("w", large, Path("f"))
    check_finite("w", torch.cat([large, -large]), Path("f"))
    check_finite("w", torch.arange(3), Path("f"))
    for bad in (float("nan"), float("inf"), -float("inf")):
        broken = large.clone()
        broken[[3, 500]] = bad
        with pytest.raises(ModelFileError, match=r"2 of 1,000 numbers of 'w' are not finite"):
            check_finite("w", broken, Path("f"))
    both = torch.tensor([float("inf"), -float("inf")], dtype=dtype)
    with pytest.raises(ModelFileError, match="2 of 2"):
        check_finite("w", both, Path("f"))
