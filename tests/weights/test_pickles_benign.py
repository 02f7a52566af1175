"""What people have as .ckpt, .pt, .pth and .bin: each layout gives the numbers that torch.load gives, bit for bit."""

import json
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sfumato.errors import ModelFileError
from sfumato.weights.embeddings import load_embedding
from sfumato.weights.files import open_file
from sfumato.weights.locate import home


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def old(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def strided() -> dict[str, torch.Tensor]:
    base = numbers(8, 6)
    return {
        "whole": base,
        "transposed": base.T,
        "rows": base[2:5],
        "column": base[:, 1],
        "every other": base[::2, ::3],
        "innermost": numbers(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "expanded": torch.ones(1, 3).expand(4, 3),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
    }


def lightning() -> dict[str, Any]:
    state = OrderedDict({"model.diffusion_model.a": numbers(3, 3), "model_ema.a": numbers(3), "betas": numbers(9)})
    return {
        "state_dict": state,
        "epoch": 3,
        "global_step": 470_000,
        "pytorch-lightning_version": "1.4.2",
        "optimizer_states": [
            {"state": {0: {"exp_avg": numbers(3)}}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.99)}]}
        ],
        "lr_schedulers": [],
        "callbacks": {"best": np.float64(0.25), "kept": np.int64(3)},
    }


DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
)
DTYPES += (torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16)
# name -> (what is saved, how to reach in it the tensors of each name that ours has)
LAYOUTS: dict[str, tuple[Callable[[], Any], Callable[[Any], dict[str, torch.Tensor]]]] = {
    "a state dict": (lambda: {"a": numbers(2, 3), "b.c": numbers(4)}, lambda v: v),
    "an ordered one with metadata": (lambda: nn.Linear(3, 2).state_dict(), lambda v: v),
    "parameters": (lambda: {"a": nn.Parameter(numbers(2, 3))}, lambda v: v),
    "every type": (lambda: {str(d): numbers(3, 4).mul(9).to(d) for d in DTYPES}, lambda v: v),
    "strided views of one storage": (strided, lambda v: v),
    "tied weights": (lambda: {"a": (t := numbers(5, 5)), "b": t}, lambda v: v),
    "Lightning with averages": (lightning, lambda v: v["state_dict"]),
    "A1111's embedding": (
        lambda: {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": nn.Parameter(numbers(2, 768))},
            "name": "cat",
            "step": 500,
            "sd_checkpoint": "abc",
        },
        lambda v: v["string_to_param"],
    ),
    "the original embedding": (
        lambda: {
            "string_to_token": {"*": torch.tensor(265)},
            "string_to_param": nn.ParameterDict({"*": nn.Parameter(numbers(1, 768))}),
        },
        lambda v: dict(v["string_to_param"].items()),
    ),
    "kohya's embedding": (lambda: {"emb_params": numbers(4, 768)}, lambda v: v),
    "diffusers' embedding": (lambda: {"<cat-toy>": numbers(768)}, lambda v: v),
    "SDXL's embedding": (lambda: {"clip_l": numbers(2, 768), "clip_g": numbers(2, 1280)}, lambda v: v),
    "an upscaler": (lambda: {"params": {"a": numbers(2)}, "params_ema": {"a": numbers(3)}}, lambda v: v["params_ema"]),
    "a hypernetwork": (
        lambda: {
            768: (nn.Linear(3, 2).state_dict(), nn.Linear(2, 3).state_dict()),
            "name": "x",
            "layer_structure": [1, 2, 1],
        },
        lambda v: {f"768.{i}.{k}": t for i, part in enumerate(v[768]) for k, t in part.items()},
    ),
    "a tensor alone": (lambda: numbers(3, 3), lambda v: {"tensor": v}),
    "a subclass's state": (lambda: {"w": with_state()}, lambda v: v),
}


def with_state() -> torch.Tensor:
    """A parameter that has an attribute of its own, which is saved with it."""
    tensor = nn.Parameter(numbers(3))
    tensor.note = "mine"  # type: ignore[attr-defined]
    return tensor


@pytest.mark.parametrize("save", [torch.save, old], ids=["zip", "row"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_gives_what_torch_gives(tmp_path: Path, layout: str, save: Callable[[Any, Path], None]) -> None:
    make, reach = LAYOUTS[layout]
    value = make()
    if save is old and layout == "every type":  # the old layout has no types without a storage class
        value = {name: tensor for name, tensor in value.items() if "float8" not in name and "uint16" not in name}
    path = tmp_path / "a.ckpt"
    save(value, path)
    expected = reach(torch.load(path, weights_only=False))
    found = open_file(path)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        ours = found[name]
        assert ours.dtype == tensor.dtype and ours.shape == tensor.shape, name
        assert ours.view(-1).view(torch.uint8).equal(tensor.detach().contiguous().view(-1).view(torch.uint8)), name
    assert found.paths == (path,)


def test_a_file_is_converted_once_and_found_again_under_another_name(tmp_path: Path) -> None:
    torch.save({"a": numbers(3)}, tmp_path / "a.ckpt")
    open_file(tmp_path / "a.ckpt")
    made = list((home() / "cache" / "checkpoints").iterdir())
    assert len(made) == 1
    before = made[0].stat().st_mtime_ns
    (tmp_path / "a.ckpt").rename(tmp_path / "b.safetensors")
    open_file(tmp_path / "b.safetensors")
    assert [path.stat().st_mtime_ns for path in (home() / "cache" / "checkpoints").iterdir()] == [before]


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    torch.save({"a": numbers(3)}, tmp_path / "a.ckpt")
    open_file(tmp_path / "a.ckpt")
    (made,) = (home() / "cache" / "checkpoints").iterdir()
    made.write_bytes(made.read_bytes()[:-4])
    assert open_file(tmp_path / "a.ckpt")["a"].equal(numbers(3))


def test_what_lay_beside_the_weights_is_told(tmp_path: Path) -> None:
    torch.save(lightning(), tmp_path / "a.ckpt")
    told = json.loads(open_file(tmp_path / "a.ckpt").metadata["sfumato.pickle"])
    assert told["told"]["global_step"] == 470_000
    assert told["left_out"] == ["optimizer_states"]


def test_shards_may_be_pickles(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        torch.save({name: numbers(number + 1)}, tmp_path / f"m-{number}.bin")
    index = tmp_path / "m.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "m-0.bin", "b": "m-1.bin"}}))
    found = open_file(index)
    assert found["a"].equal(numbers(1)) and found["b"].equal(numbers(2))
    index.write_text(json.dumps({"weight_map": {"a": "../m-0.bin"}}))
    with pytest.raises(ModelFileError, match="beside the index"):
        open_file(index)


def test_an_embedding_is_read_from_a_pickle(tmp_path: Path) -> None:
    torch.save(LAYOUTS["A1111's embedding"][0](), tmp_path / "kitten.pt")
    found = load_embedding(tmp_path / "kitten.pt")
    assert (found.word, found.count, found.made_for) == ("kitten", 2, "SD 1.x")


def test_a_large_archive_has_64_bit_sizes_and_is_read(tmp_path: Path) -> None:
    """An archive whose members are told in 64 bits, as those above 4 GiB are, written here for a small one."""
    torch.save({"a": numbers(3)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as read, zipfile.ZipFile(tmp_path / "b.pt", "w") as write:
        for member in read.infolist():
            with write.open(member.filename, "w", force_zip64=True) as file:
                file.write(read.read(member))
    assert open_file(tmp_path / "b.pt")["a"].equal(numbers(3))
