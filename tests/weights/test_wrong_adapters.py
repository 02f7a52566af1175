"""Adapters, words and autoencoders that do not fit or are damaged: an error that names the file; the model stays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sfumato.errors import SfumatoError
from sfumato.model import Model, hash_tensors
from sfumato.request import Embedding, Lora
from sfumato.weights.embeddings import with_embeddings
from sfumato.weights.load import load
from sfumato.weights.lora import with_loras

Pipelines = Callable[[str], tuple[Any, Path]]
Tensors = dict[str, torch.Tensor]
LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
WIDTH = 64  # features of that layer in the tiny model, whose text encoder has 32
NAN, INF = float("nan"), float("inf")


def lora(down: torch.Tensor | None = None, up: torch.Tensor | None = None, **more: torch.Tensor) -> Tensors:
    """A LoRA of one layer, or what is left of it."""
    named = {"lora_down.weight": down, "lora_up.weight": up, **more}
    return {f"{LAYER}.{name}": tensor for name, tensor in named.items() if tensor is not None}


def good(rank: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(rank, WIDTH), torch.ones(WIDTH, rank)


def spoilt(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor[0, 0] = value
    return tensor


DOWN, UP = good()
LORAS: dict[str, Tensors] = {
    "down too narrow": lora(torch.ones(2, WIDTH - 1), UP),
    "up too short": lora(DOWN, torch.ones(WIDTH - 1, 2)),
    "two ranks": lora(DOWN, torch.ones(WIDTH, 3)),
    "rank 0": lora(torch.ones(0, WIDTH), torch.ones(WIDTH, 0)),
    "three dimensions": lora(torch.ones(2, WIDTH, 1), torch.ones(WIDTH, 2, 1)),
    "a number": lora(torch.tensor(1.0), UP),
    "a convolution's": lora(torch.ones(2, WIDTH, 3, 3), torch.ones(WIDTH, 2, 1, 1)),
    "whole numbers": lora(DOWN.int(), UP),
    "NaN in down": lora(spoilt(good()[0], NAN), UP),
    "infinity in up": lora(DOWN, spoilt(good()[1], INF)),
    "alpha NaN": lora(DOWN, UP, alpha=torch.tensor(NAN)),
    "alpha infinite": lora(DOWN, UP, alpha=torch.tensor(INF)),
    "alpha of two numbers": lora(DOWN, UP, alpha=torch.ones(2)),
    "no up": lora(DOWN),
    "no down": lora(None, UP),
    "only an alpha": lora(alpha=torch.tensor(1.0)),
    "no layer of the model": {name.replace("mid_block", "mid_block_9"): t for name, t in lora(DOWN, UP).items()},
    "of another family": {
        f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_{end}.weight": tensor
        for end, tensor in (("down", torch.ones(2, 768)), ("up", torch.ones(320, 2)))
    },
}
WORDS: dict[str, Tensors] = {
    "another width": {"<a>": torch.ones(1, 31)},
    "no vectors": {"<a>": torch.ones(0, 32)},
    "too many vectors": {"<a>": torch.ones(76, 32)},
    "three dimensions": {"<a>": torch.ones(1, 1, 32)},
    "a number": {"<a>": torch.tensor(1.0)},
    "whole numbers": {"<a>": torch.ones(1, 32, dtype=torch.int64)},
    "NaN": {"<a>": spoilt(torch.ones(1, 32), NAN)},
    "infinity": {"<a>": spoilt(torch.ones(1, 32), INF)},
    "SDXL's": {"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)},
    "SDXL's with two counts": {"clip_l": torch.ones(1, 768), "clip_g": torch.ones(2, 1280)},
    "two words": {"<a>": torch.ones(1, 32), "<b>": torch.ones(1, 32)},
    "a LoRA": lora(DOWN, UP),
}


@pytest.fixture(scope="module")
def model(pipelines: Pipelines) -> Model:
    return load(pipelines("sd1")[1])


def state(model: Model) -> list[str]:
    return [hash_tensors(each.state_dict()) for each in (model.unet, model.autoencoder, *model.text.encoders)]


def written(tensors: Tensors, path: Path, container: str) -> Path:
    """The tensors in a container: safetensors, or a pickle of either layout."""
    whole = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    if container == "safetensors":
        save_file(whole, path)
    else:
        torch.save(whole, path, _use_new_zipfile_serialization=container == "zip")
    return path


PICKLED = [pytest.param(each, marks=pytest.mark.slow) for each in ("zip", "row")]
CASES = [("lora", name) for name in LORAS] + [("word", name) for name in WORDS]


@pytest.mark.parametrize("container", ["safetensors", *PICKLED])
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_wrong_file_is_named_and_changes_nothing(
    model: Model, tmp_path: Path, case: tuple[str, str], container: str
) -> None:
    kind, name = case
    before = state(model)
    path = written((LORAS if kind == "lora" else WORDS)[name], tmp_path / "wrong.bin", container)
    with pytest.raises(SfumatoError, match=r"wrong\.bin"):
        if kind == "lora":
            with_loras(model, [Lora(str(path))])
        else:
            with_embeddings(model, [Embedding(str(path), "<a>")])
    assert state(model) == before


def test_the_right_ones_beside_them_work(model: Model, tmp_path: Path) -> None:
    before = state(model)
    path = written(lora(DOWN, UP, alpha=torch.tensor(1.0)), tmp_path / "right.bin", "zip")
    assert state(with_loras(model, [Lora(str(path))])) != before
    path = written({"<a>": torch.ones(2, 32)}, tmp_path / "word.bin", "zip")
    assert with_embeddings(model, [Embedding(str(path), "<a>")]).embeddings
    assert state(model) == before


@pytest.mark.parametrize("case", ["a layer less", "a layer more", "another shape", "NaN", "a LoRA", "another latent"])
def test_a_wrong_autoencoder_is_named(pipelines: Pipelines, tmp_path: Path, case: str) -> None:
    folder = pipelines("sd1")[1]
    from safetensors.torch import load_file

    tensors = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    name = "decoder.conv_in.weight"
    changes: dict[str, Callable[[], Any]] = {
        "a layer less": lambda: tensors.pop(name),
        "a layer more": lambda: tensors.update({"decoder.extra.weight": torch.ones(2)}),
        "another shape": lambda: tensors.update({name: tensors[name][:, :, :1]}),
        "NaN": lambda: tensors[name].fill_(NAN),
        "a LoRA": lambda: (tensors.clear(), tensors.update(lora(DOWN, UP))),
        "another latent": lambda: tensors.update({name: torch.ones(64, 8, 3, 3)}),
    }
    changes[case]()
    path = written(tensors, tmp_path / "wrong.pt", "safetensors")
    with pytest.raises(SfumatoError, match=r"wrong\.pt"):
        load(folder, vae=path)
