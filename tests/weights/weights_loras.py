"""LoRAs with random numbers, for the tiny models of the tests, and their files in names written by hand."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sfumato.model import Model
from sfumato.nn.lora import Adapters, Target, create
from sfumato.weights.lora import networks_of

Parts = Mapping[str, tuple[Target, ...]]

# Different ranks, different scales, and every kind of layer.
MIXED: Parts = {
    "unet": (
        Target("*.attn2.to_[kv]", 2, 1.0),
        Target("*.resnets.*", 3, 4.5),
        Target("*attentions.*", 4, 6.0),
        Target("*", 2),
    ),
    "text_encoder": (Target("*.q_proj", 2, 1.0), Target("*.mlp.*", 5, 2.5), Target("*.layers.*", 4)),
    "text_encoder_2": (Target("*.fc1", 3, 0.3), Target("*.layers.*", 2)),
}


def random_lora(model: Model, parts: Parts = MIXED, dtype: torch.dtype = torch.float32) -> dict[str, Adapters]:
    """Adapters of a model's networks in which every tensor is random."""
    made = {}
    for number, (name, network) in enumerate(networks_of(model).items()):
        if name in parts:
            made[name] = create(network, parts[name], seed=number)
            generator = torch.Generator().manual_seed(50 + number)
            for _, adapter in made[name].items():
                adapter.up.data.normal_(0, 0.3, generator=generator)
            made[name].to(dtype).requires_grad_(False)
    return made


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """A safetensors file of these tensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, dict(metadata or {}))
    return path


def assert_same(found: Mapping[str, Adapters], expected: Mapping[str, Adapters]) -> None:
    """The same layers with the same bits and alphas."""
    assert set(found) == set(expected)
    for network, adapters in expected.items():
        assert set(found[network].paths) == set(adapters.paths)
        for path, adapter in adapters.items():
            other = found[network][path]
            assert other.alpha == adapter.alpha
            for mine, theirs in ((adapter.down, other.down), (adapter.up, other.up)):
                assert mine.dtype == theirs.dtype
                assert torch.equal(mine, theirs)
