"""Adapters that cannot be: each is one error that names its file, before anything is changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from weights_loras import write

from sfumato.errors import ModelFileError
from sfumato.model import Model, hash_tensors
from sfumato.nn.change import changeable
from sfumato.request import Lora
from sfumato.weights.load import load
from sfumato.weights.lora import networks_of, with_loras

Tensors = dict[str, Tensor]
WIDE = 32  # of the layer: its outputs and its inputs


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 0.1


WHOLE: dict[str, Callable[[], Tensors]] = {
    "lora": lambda: {"lora_down.weight": random(4, WIDE), "lora_up.weight": random(WIDE, 4)},
    "dora": lambda: {
        "lora_down.weight": random(4, WIDE),
        "lora_up.weight": random(WIDE, 4),
        "dora_scale": random(WIDE, 1),
    },
    "loha": lambda: {
        "hada_w1_a": random(WIDE, 3),
        "hada_w1_b": random(3, WIDE),
        "hada_w2_a": random(WIDE, 3),
        "hada_w2_b": random(3, WIDE),
    },
    "lokr": lambda: {"lokr_w1": random(4, 4), "lokr_w2_a": random(8, 2), "lokr_w2_b": random(2, 8)},
    "oft": lambda: {"oft_blocks": random(8, 4, 4)},
    "boft": lambda: {"oft_blocks": random(2, 8, 4, 4)},
    "ia3": lambda: {"weight": random(WIDE), "on_input": torch.tensor(0)},
    "full": lambda: {"diff": random(WIDE, WIDE)},
}


def first(tensors: Tensors) -> str:
    return next(iter(tensors))


def with_number(value: float) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        tensors[first(tensors)].view(-1)[-1] = value
        return tensors

    return change


def replaced(change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, first(tensors): change(tensors[first(tensors)])}


SPOILT: dict[str, Callable[[Tensors], Tensors]] = {
    "nan": with_number(float("nan")),
    "inf": with_number(float("-inf")),
    "empty": replaced(lambda tensor: tensor[:0]),
    "integers": replaced(lambda tensor: (tensor * 100).to(torch.int32)),
    "larger": replaced(lambda tensor: torch.cat([tensor, tensor])),
    "flat": replaced(lambda tensor: tensor.flatten()[:7]),
    "another kind too": lambda tensors: {**tensors, "a1.weight": random(2, 2)},
}
ALPHAS = {"alpha 0": 0.0, "alpha inf": float("inf"), "alpha nan": float("nan"), "alpha 1e30": 1e30}
CASES = [(kind, change) for kind in WHOLE for change in SPOILT]
CASES.remove(("boft", "larger"))  # so many levels are possible, too
CASES += [(kind, alpha) for kind in ("lora", "dora", "loha", "lokr") for alpha in ALPHAS]
CASES += [(kind, "half") for kind in ("lora", "dora", "loha", "lokr", "ia3")]
CASES += [(kind, "two kinds") for kind in ("loha", "lokr", "oft", "boft", "ia3")]
CASES += [(kind, "elsewhere") for kind in WHOLE]
CASES += [("lora", "rank 1000000"), ("lora", "another family"), ("loha", "mixed families")]


def spoilt(kind: str, change: str, name: str) -> Tensors:
    """The tensors of a file that is wrong in one way."""
    tensors = WHOLE[kind]()
    if change in SPOILT:
        tensors = SPOILT[change](tensors)
    elif change in ALPHAS:
        tensors["alpha"] = torch.tensor(ALPHAS[change])
    elif change == "half":
        del tensors[first(tensors)]
    elif change == "two kinds":
        tensors |= WHOLE["lora"]()
    elif change == "rank 1000000":
        tensors["lora_down.weight"] = torch.zeros(1_000_000, WIDE, dtype=torch.float16)
    elif change == "another family":
        tensors["lora_down.weight"] = random(4, 640)
    elif change == "elsewhere":
        name = name.replace("to_q", "to_nowhere")
    named = {f"{name}.{end}": value for end, value in tensors.items()}
    if change == "mixed families":
        other = name.replace("attn1_to_q", "attn2_to_k")
        named |= {f"{other}.{end}": random(*(2048 if side == WIDE else side for side in value.shape)) for end, value in
                  WHOLE["loha"]().items()}  # fmt: skip
    return named


@pytest.fixture(scope="module")
def model(pipelines: Callable[[str], tuple[Any, Path]]) -> Model:
    return load(pipelines("sd1")[1])


@pytest.fixture(scope="module")
def layer(model: Model) -> str:
    path, found = next((path, each) for path, each in changeable(model.unet).items() if path.endswith("attn1.to_q"))
    assert found.weight.shape == (WIDE, WIDE)
    return f"lora_unet_{path.replace('.', '_')}"


def test_they_are_sixty_and_the_whole_ones_are_taken(model: Model, layer: str, tmp_path: Path) -> None:
    assert len(CASES) >= 60
    for kind, whole in WHOLE.items():
        path = write(tmp_path / f"{kind}.safetensors", {f"{layer}.{end}": value for end, value in whole().items()})
        with_loras(model, [Lora(str(path))])


@pytest.mark.parametrize(("kind", "change"), CASES)
def test_a_broken_adapter_is_one_error_and_changes_nothing(
    model: Model, layer: str, tmp_path: Path, kind: str, change: str
) -> None:
    before = {name: hash_tensors(network.state_dict()) for name, network in networks_of(model).items()}
    path = write(tmp_path / "broken.safetensors", spoilt(kind, change, layer))
    with pytest.raises(ModelFileError) as caught:
        with_loras(model, [Lora(str(path))])
    assert str(path) in str(caught.value)
    assert {name: hash_tensors(network.state_dict()) for name, network in networks_of(model).items()} == before
