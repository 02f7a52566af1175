"""Low-rank adapters: a small change of a network's weights, beside them or merged into them. Hu et al. 2021 (LoRA).

A layer's weight W becomes W + weight * alpha / rank * up @ down. `create` makes new ones to train, `Adapters.attach`
lets them act beside the frozen network, `merge` makes them part of its weights until it is undone, and `twin` gives a
second network that shares the tensors of the first, so that the first stays as it is.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sfumato.errors import ConfigError
from sfumato.nn.change import Change, Changeable, Layer, changeable, partly
from sfumato.nn.resting import Resting

N = TypeVar("N", bound=nn.Module)

# Patterns of layers' paths, as `Target` has them.
TRANSFORMERS = "*attentions.*"  # projections, attention and feed-forward: what kohya's trainer takes, 192 in SD 1.x
ATTENTION = "*.attn?.to_*"  # queries, keys, values and outputs: what diffusers' trainers take
CONVOLUTIONS = "*.resnets.*"  # both convolutions, the shortcut and the timestep's projection
TEXT = "text_model.encoder.layers.*"  # attention and perceptrons of a text encoder, 72 in SD 1.x


@dataclass(frozen=True)
class Target:
    """Layers whose path fits `pattern` get adapters of this rank; `alpha` None is the rank, a scale of 1.

    A pattern is a path in which * stands for any letters, dots too, and ? for one: "*.attn2.to_[kv]".
    """

    pattern: str
    rank: int
    alpha: float | None = None


class Adapter(nn.Module):
    """The change of one layer: `down` [r, in] or [r, in, k, k], then `up` [out, r] or [out, r, 1, 1].

    A 1x1 convolution and a linear layer take either form. The tensors are kept as they are given, without gradients
    until `requires_grad_` asks for them. Raises ValueError if the two do not go together.
    """

    def __init__(self, down: Tensor, up: Tensor, alpha: float | None = None) -> None:
        super().__init__()
        if down.ndim not in (2, 4) or up.ndim not in (2, 4) or down.shape[0] != up.shape[1] or not down.shape[0]:
            raise ValueError(f"down {list(down.shape)} and up {list(up.shape)} are no low-rank pair")
        if up.ndim == 4 and up.shape[2:] != (1, 1):
            raise ValueError(f"up {list(up.shape)} is a convolution larger than 1x1")
        self.down = nn.Parameter(down, requires_grad=False)
        self.up = nn.Parameter(up, requires_grad=False)
        self.alpha = float(self.rank if alpha is None else alpha)

    @property
    def rank(self) -> int:
        """How many directions the change has."""
        return len(self.down)

    @property
    def scale(self) -> float:
        """What up @ down is multiplied by."""
        return self.alpha / self.rank

    @property
    def changes_bias(self) -> bool:
        """Does the layer's bias become another?"""
        return False

    def fits(self, layer: Changeable) -> bool:
        """Can this be added to the layer's weight?"""
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            return False
        kernel = layer.weight.shape[2:] or (1, 1)
        inside = self.down.shape[2:] or (1, 1)
        grouped = isinstance(layer, nn.Conv2d) and layer.groups != 1
        widths = (self.up.shape[0], self.down.shape[1])
        return widths == layer.weight.shape[:2] and inside == kernel and not grouped

    def changed(self, weight: Tensor) -> Tensor:
        """The weight with scale * up @ down added to it."""
        up, down = (tensor.to(weight).flatten(1) for tensor in (self.up, self.down))
        return weight + (up @ down).view(weight.shape) * self.scale

    def changed_bias(self, bias: Tensor) -> Tensor:
        """The same bias."""
        return bias

    def forward(self, layer: Layer, x: Tensor) -> Tensor:
        """What is added to the layer's output for its input x, in the more precise of both types, or autocast's."""
        down: Tensor = self.down
        up: Tensor = self.up
        if not torch.is_autocast_enabled(x.device.type):
            dtype = torch.promote_types(x.dtype, down.dtype)
            x, down, up = (tensor.to(dtype) for tensor in (x, down, up))
        if isinstance(layer, nn.Linear):
            return times(F.linear(F.linear(x, down.flatten(1)), up.flatten(1)), self.scale)
        down = down.view(*down.shape[:2], *layer.kernel_size)
        inside = F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
        return times(F.conv2d(inside, up.view(*up.shape[:2], 1, 1)), self.scale)


class Adapters(nn.Module):
    """The adapters of one network by the paths of their layers; what a training optimises.

    In the state dict a path has underscores in place of dots, as kohya's files have it.
    """

    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        super().__init__()
        self.paths = tuple(adapters)
        self.layers = nn.ModuleDict({path.replace(".", "_"): adapter for path, adapter in adapters.items()})

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, path: str) -> Adapter:
        found = self.layers[path.replace(".", "_")]
        assert isinstance(found, Adapter)
        return found

    def items(self) -> Iterator[tuple[str, Adapter]]:
        """Each path with its adapter."""
        return ((path, self[path]) for path in self.paths)

    def check(self, network: nn.Module) -> None:
        """Raise ConfigError, with their number and the first, if some fit no layer of the network."""
        check_fits(self, changeable(network))

    def attach(self, network: nn.Module, weight: float = 1.0) -> "Attachment":
        """Let them act beside the network, whose parameters are frozen until it is detached. Raises ConfigError.

        Several may be attached at once. The network's tensors and their names stay as they are.
        """
        self.check(network)
        return Attachment(self, network, weight)


class Attachment:
    """Adapters that act beside a network. `weight` may be changed at any time; 0 is the network alone."""

    def __init__(self, adapters: Adapters, network: nn.Module, weight: float) -> None:
        self.weight = weight
        self._thawed = [parameter for parameter in network.parameters() if parameter.requires_grad]
        network.requires_grad_(False)
        layers = adaptable(network)
        self._handles: list[RemovableHandle] = [
            layers[path].register_forward_hook(self._beside(adapter)) for path, adapter in adapters.items()
        ]

    def _beside(self, adapter: Adapter) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            assert isinstance(layer, nn.Linear | nn.Conv2d)
            if self.weight == 0:
                return output
            beside: Tensor = adapter(layer, inputs[0])
            return output + times(beside, self.weight).to(output.dtype)

        return add

    def detach(self) -> None:
        """Leave the network as it was."""
        for handle in self._handles:
            handle.remove()
        for parameter in self._thawed:
            parameter.requires_grad_(True)


def times(x: Tensor, factor: float) -> Tensor:
    """x * factor, without a pass over memory where that is x."""
    return x if factor == 1 else x * factor


def adaptable(network: nn.Module) -> dict[str, Layer]:
    """The layers that can have an adapter, by their paths: all linear ones and convolutions."""
    return {path: layer for path, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}


def create(network: nn.Module, targets: Sequence[Target], *, seed: int = 0) -> Adapters:
    """New adapters to train, in float32 on the network's device: `down` random, `up` zero, so nothing changes yet.

    The first target that fits a layer's path decides. `down` is uniform within 1 / sqrt(inputs), as PyTorch starts a
    linear layer, from a generator of its own. Raises ConfigError for a target that fits no layer, or a rank below 1.
    """
    generator = torch.Generator().manual_seed(seed)
    unused = {target.pattern for target in targets}
    found: dict[str, Adapter] = {}
    for path, layer in adaptable(network).items():
        fitting = [target for target in targets if fnmatchcase(path, target.pattern)]
        unused -= {target.pattern for target in fitting}
        if fitting:
            found[path] = _new(layer, fitting[0], generator).requires_grad_(True)
    if unused or not targets:
        raise ConfigError(f"No layer of this network fits {', '.join(map(repr, sorted(unused))) or 'no target'}.")
    return Adapters(found)


def _new(layer: Layer, target: Target, generator: torch.Generator) -> Adapter:
    if target.rank < 1 or (target.alpha is not None and not math.isfinite(target.alpha)):
        raise ConfigError(
            f"{target.pattern!r} asks for rank {target.rank} and alpha {target.alpha}; rank is 1 or more."
        )
    outputs, inputs, *kernel = layer.weight.shape
    down = torch.empty(target.rank, inputs, *kernel)
    bound = down[0].numel() ** -0.5
    down.uniform_(-bound, bound, generator=generator)
    up = torch.zeros(outputs, target.rank, *(1 for _ in kernel))
    device = layer.weight.device
    return Adapter(down.to(device), up.to(device), target.alpha)


class Changes(dict[str, Change]):
    """The changes of one network by the paths of their layers, of any kind."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths."""
        return tuple(self)

    def low_rank(self) -> Adapters:
        """They as LoRAs, which can be trained, attached and written. Raises ConfigError if some are of another kind."""
        found = {path: change for path, change in self.items() if isinstance(change, Adapter)}
        if len(found) != len(self):
            other = next(path for path in self if path not in found)
            raise ConfigError(
                f"{len(self) - len(found)} of {len(self)} adapters are no LoRAs, first {other!r}: others can be "
                "drawn with, no more."
            )
        return Adapters(found)


@dataclass(frozen=True)
class Merged:
    """Weights and biases that were replaced, with what was there before and after."""

    before: Mapping[tuple[nn.Module, str], nn.Parameter]
    after: Mapping[tuple[nn.Module, str], nn.Parameter]

    def undo(self) -> None:
        """Put the weights from before back: the same tensors. Raises ValueError if they were replaced again since."""
        if any(getattr(layer, name) is not self.after[layer, name] for layer, name in self.before):
            raise ValueError("the weights were replaced again since; undo what came later first")
        for (layer, name), parameter in self.before.items():
            setattr(layer, name, parameter)


@torch.no_grad()
def merge(network: nn.Module, parts: Sequence[tuple[Adapters | Changes, float]]) -> Merged:
    """Make adapters, each with its weight, part of the network's weights; `undo` of the answer takes them out.

    No tensor is written to: a changed layer gets a new one, in the old one's precision and layout, summed in float32
    and rounded once. What has the weight 0 changes nothing. Each adapter sees the weight as it was before all of them,
    so that their order does not matter. Raises ConfigError for adapters that do not fit.
    """
    layers = changeable(network)
    changes: dict[str, list[tuple[Change, float]]] = {}
    for adapters, weight in parts:
        check_fits(adapters, layers)
        for path, change in adapters.items():
            if weight:
                changes.setdefault(path, []).append((change, weight))
    before: dict[tuple[nn.Module, str], nn.Parameter] = {}
    after: dict[tuple[nn.Module, str], nn.Parameter] = {}
    for path, each in changes.items():
        layer = layers[path]
        values = {"weight": changed_weight(layer, each)}
        if any(change.changes_bias for change, _ in each) and layer.bias is not None:
            values["bias"] = changed_bias(layer.bias, each)
        for name, value in values.items():
            old = getattr(layer, name)
            before[layer, name] = old
            after[layer, name] = nn.Parameter(value, requires_grad=old.requires_grad)
            setattr(layer, name, after[layer, name])
    return Merged(before, after)


def act_beside(network: nn.Module, parts: Sequence[tuple[Changes, float]]) -> None:
    """Let adapters act beside a network for good, and merge those that are no LoRAs. Raises ConfigError.

    Rounds otherwise than `merge`, and needs the memory of the adapters alone.
    """
    others = []
    for changes, weight in parts:
        low = Adapters({path: change for path, change in changes.items() if isinstance(change, Adapter)})
        low.attach(network, weight)
        others.append((Changes({path: each for path, each in changes.items() if path not in low.paths}), weight))
    merge(network, others)


def check_fits(adapters: Adapters | Changes, layers: Mapping[str, Changeable]) -> None:
    """Raise ConfigError, with their number and the first, if some fit no layer."""
    wrong = [path for path, change in adapters.items() if path not in layers or not change.fits(layers[path])]
    if wrong:
        raise ConfigError(f"{len(wrong)} of {len(adapters)} adapters fit no layer of this network, first {wrong[0]!r}.")


def changed_weight(layer: Changeable, parts: Sequence[tuple[Change, float]]) -> Tensor:
    """The weight of a layer with adapters, each with its weight: LoRAs as one product of all of them, side by side."""
    weight = layer.weight
    dtype = torch.promote_types(weight.dtype, torch.float32)
    base = weight.to(dtype)
    pairs = [(each, factor) for each, factor in parts if isinstance(each, Adapter)]
    value = base
    if pairs:
        ups = [each.up.to(weight.device, dtype).flatten(1) * (each.scale * factor) for each, factor in pairs]
        downs = [each.down.to(weight.device, dtype).flatten(1) for each, _ in pairs]
        value = torch.addmm(base.flatten(1), torch.cat(ups, 1), torch.cat(downs)).view(weight.shape)
    others = [(each, factor) for each, factor in parts if not isinstance(each, Adapter)]
    if len(others) == len(parts) == 1:
        value = partly(base, others[0][0].changed(base), others[0][1])
    else:
        for each, factor in others:
            value = value + (each.changed(base) - base) * factor
    return in_place_of(weight, value)


def changed_bias(bias: Tensor, parts: Sequence[tuple[Change, float]]) -> Tensor:
    """A bias with adapters, each with its weight."""
    base = bias.to(torch.promote_types(bias.dtype, torch.float32))
    value = base
    for each, factor in parts:
        value = value + (each.changed_bias(base) - base) * factor
    return in_place_of(bias, value)


def in_place_of(old: Tensor, value: Tensor) -> Tensor:
    """A value in the precision and the layout of another tensor, in memory of its own; at rest where that one is."""
    if isinstance(old, Resting):
        return old.like(value)
    if value.dtype == old.dtype and value.stride() == old.stride() and value.data_ptr() != old.data_ptr():
        return value
    return torch.empty_like(old).copy_(value)


def twin(network: N) -> N:
    """A second network of the same structure that shares the tensors of the first. Replacing one leaves the other."""
    shared = chain(network.parameters(), network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor for tensor in shared})
