"""Merged models: each tensor is what the formula says, rounded once; what is not alike is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_load_folder import same_weights

from sfumato.errors import OutputError, RequestError, WeightsError
from sfumato.weights.load import load
from sfumato.weights.merge import merge
from sfumato.weights.rewrite import rewrite
from sfumato.weights.save import save_file as save_model

Pipelines = Callable[[str], tuple[Any, Path]]
Tensors = dict[str, torch.Tensor]
UNET = "model.diffusion_model."


def changed(path: Path, to: Path, seed: int, dtype: torch.dtype | None = None) -> Path:
    """A model of the same kind with other numbers."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: (tensor + torch.randn(tensor.shape, generator=generator)).to(dtype or tensor.dtype)
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, to, metadata)
    return to


@pytest.fixture(scope="module")
def three(pipelines: Pipelines, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Three models of one kind, in float32."""
    root = tmp_path_factory.mktemp("three")
    first = save_model(load(pipelines("sdxl")[1]), root / "a.safetensors")
    return first, changed(first, root / "b.safetensors", 1), changed(first, root / "c.safetensors", 2)


def close(found: Tensors, expected: Callable[[str], torch.Tensor], dtype: torch.dtype) -> None:
    """Every tensor is within one rounding in float32 and one in the type that was written."""
    assert found
    for name, tensor in found.items():
        wanted = expected(name)
        assert tensor.dtype == dtype
        allowed = wanted.abs() * (torch.finfo(dtype).eps / 2 + 8 * torch.finfo(torch.float32).eps) + 1e-6
        assert ((tensor.double() - wanted).abs() <= allowed).all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_weighted_sum_is_the_closed_form_of_each_tensor(
    three: tuple[Path, Path, Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    a, b = (load_file(path) for path in three[:2])
    found = load_file(merge(three[0], three[1], tmp_path / "m.safetensors", weight=0.3, dtype=dtype))
    assert set(found) == set(a)
    close(found, lambda name: 0.7 * a[name].double() + 0.3 * b[name].double(), dtype)


def test_a_difference_is_added_in_the_closed_form(three: tuple[Path, Path, Path], tmp_path: Path) -> None:
    a, b, c = (load_file(path) for path in three)
    found = load_file(merge(three[0], three[1], tmp_path / "m.safetensors", third=three[2], weight=0.8))
    close(found, lambda name: a[name].double() + 0.8 * (b[name].double() - c[name].double()), torch.float32)


def test_blocks_have_their_own_weights(three: tuple[Path, Path, Path], tmp_path: Path) -> None:
    a, b = (load_file(path) for path in three[:2])
    blocks = {"IN00": 1.0, "M00": 0.25, "vae": 0.0, "text_encoder_2": 0.75, "unet.conv_norm_out": 0.1}
    found = load_file(merge(three[0], three[1], tmp_path / "m.safetensors", weight=0.5, blocks=blocks))

    def weight(name: str) -> float:
        for start, value in (
            (UNET + "input_blocks.0.", 1.0),
            (UNET + "middle_block.", 0.25),
            (UNET + "out.0.", 0.1),
            ("first_stage_model.", 0.0),
            ("conditioner.embedders.1.", 0.75),
        ):
            if name.startswith(start):
                return value
        return 0.5

    close(found, lambda name: a[name].double() * (1 - weight(name)) + b[name].double() * weight(name), torch.float32)
    assert all(found[name].equal(a[name]) for name in a if name.startswith("first_stage_model."))


def test_nothing_and_all_of_the_second_are_the_models_themselves(
    three: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    none = merge(three[0], three[1], tmp_path / "none.safetensors", weight=0.0)
    whole = merge(three[0], three[1], tmp_path / "all", weight=1.0)
    assert same_weights(load(none), load(three[0]))
    assert same_weights(load(whole), load(three[1]))
    assert load(whole).family == load(three[0]).family


def test_a_folder_and_a_single_file_of_the_same_model_are_alike(
    pipelines: Pipelines, three: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    folder = pipelines("sdxl")[1]
    assert same_weights(
        load(merge(folder, three[1], tmp_path / "m.safetensors")), load(merge(three[0], three[1], tmp_path / "n"))
    )


def test_an_inpainting_model_takes_the_difference_of_two_others(pipelines: Pipelines, tmp_path: Path) -> None:
    """inpainting + (custom - base): how custom inpainting models are made; the mask's channels stay."""
    paint = save_model(load(pipelines("sd1-inpaint")[1]), tmp_path / "paint.safetensors")
    base = save_model(load(pipelines("sd1")[1]), tmp_path / "base.safetensors")
    custom = changed(base, tmp_path / "custom.safetensors", 3)
    found = load_file(merge(paint, custom, tmp_path / "m.safetensors", third=base, weight=1.0))
    name = UNET + "input_blocks.0.0.weight"
    p, c, b = (load_file(path)[name] for path in (paint, custom, base))
    torch.testing.assert_close(found[name][:, :4], p[:, :4] + c - b, rtol=1e-6, atol=1e-6)
    assert found[name][:, 4:].equal(p[:, 4:])


def test_the_type_of_each_tensor_is_the_first_model_s(three: tuple[Path, Path, Path], tmp_path: Path) -> None:
    half = changed(three[0], tmp_path / "half.safetensors", 4, torch.float16)
    found = load_file(merge(half, three[1], tmp_path / "m.safetensors"))
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}


def test_what_is_not_alike_is_refused(pipelines: Pipelines, three: tuple[Path, Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    with pytest.raises(WeightsError, match="name models of one kind"):
        merge(three[0], pipelines("sd1")[1], out)
    with pytest.raises(WeightsError, match="predicts"):
        merge(pipelines("sd2")[1], pipelines("sd1")[1], out)
    with pytest.raises(RequestError, match=r"no block 'IN77'; there are IN00 to OUT0\d"):
        merge(three[0], three[1], out, blocks={"IN77": 1.0})
    with pytest.raises(OutputError, match=r"not finite in torch\.float16"):
        merge(three[0], three[1], out, weight=1e6, dtype=torch.float16)
    assert not out.exists()


def test_a_file_is_rewritten_with_its_names_and_metadata(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(3)}
    torch.save({"params": tensors}, tmp_path / "up.pth")
    found = load_file(rewrite(tmp_path / "up.pth", tmp_path / "up.safetensors"))
    assert found["a"].equal(tensors["a"]) and found["b"].equal(tensors["b"])
    half = load_file(rewrite(tmp_path / "up.pth", tmp_path / "half.safetensors", dtype=torch.float16))
    assert half["a"].equal(tensors["a"].half()) and half["b"].dtype == torch.int64
    with pytest.raises(OutputError, match="name the file so"):
        rewrite(tmp_path / "up.pth", tmp_path / "up.ckpt")
