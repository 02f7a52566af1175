"""Checkpoints mixed into a new one, tensor by tensor, so that models of any size take little memory.

weighted sum     (1 - w) A + w B
add difference   A + w (B - C)

`w` may differ by block. Numbers are computed in float32 (float64 where a file has that) and rounded once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfumato.errors import RequestError, WeightsError
from sfumato.nn.unet import UNet
from sfumato.weights.files import DTYPES
from sfumato.weights.ldm import unet_naming
from sfumato.weights.load import hollow, open_model
from sfumato.weights.naming import Rule, identity, their_shapes
from sfumato.weights.opened import Opened
from sfumato.weights.save import metadata_of, networks_of, single_rules, write_folder
from sfumato.weights.streaming import Outline, write_stream
from sfumato.weights.writing import folder_written_aside, written_aside

# Blocks by their numbers, as merging programs call them: IN00 is the first convolution, M00 the middle.
NUMBERED_MODULES = {"IN": "input_blocks", "M": "middle_block", "OUT": "output_blocks"}
FIRST = "conv_in.weight"  # of inpainting and instructed models it has more channels than of the others
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Mix:
    """How much of the second model goes into each tensor: `weight`, or what the longest fitting block says.

    A block is the beginning of a tensor's path behind its network ("unet.down_blocks.1", "text_encoder", "vae"), or a
    number of the UNet's blocks ("IN00", "M00", "OUT11").
    """

    weight: float
    blocks: Mapping[str, float]

    def of(self, network: str, name: str, number: str) -> float:
        """Return the weight of a tensor of a network; `number` is its block's."""
        path = f"{network}.{name}"
        fitting = [block for block in self.blocks if path == block or path.startswith(f"{block}.")]
        if number in self.blocks:
            return self.blocks[number]
        return self.blocks[max(fitting, key=len)] if fitting else self.weight


class Merger:
    """Opened models, and every tensor of their mixture when it is asked for."""

    def __init__(self, first: Opened, second: Opened, third: Opened | None, mix: Mix) -> None:
        self.models = (first, second) if third is None else (first, second, third)
        self._mix = mix
        self._sources = [{name: part.places for name, part in model.components.items()} for model in self.models]
        for model in self.models[1:]:
            check_alike(first, model)
        self._numbers = block_numbers(first)
        check_blocks(mix, first, self._numbers)

    def stored(self, network: str, name: str) -> torch.dtype:
        """Return the type in which the first model has a tensor."""
        rule, tensors = self._sources[0][network][name][0], self.models[0].components[network].tensors
        return DTYPES[tensors.infos[rule.theirs].dtype]

    def tensor(self, network: str, name: str) -> Tensor:
        """Return one tensor of the mixture, in our names and before it is rounded."""
        first = self._read(0, network, name)
        weight = self._mix.of(network, name, self._numbers.get(name, "") if network == "unet" else "")
        if weight == 0:
            return first
        kind = torch.float64 if first.dtype == torch.float64 else torch.float32
        a, b = first.to(kind), self._read(1, network, name).to(kind)
        if name == FIRST and network == "unet" and a.shape[1] > b.shape[1]:
            rest = a[:, b.shape[1] :]
            return torch.cat([self._mixed(a[:, : b.shape[1]], b, weight, network, name), rest], dim=1)
        return self._mixed(a, b, weight, network, name)

    def _mixed(self, a: Tensor, b: Tensor, weight: float, network: str, name: str) -> Tensor:
        if len(self.models) == 2:
            return a * (1 - weight) + b * weight
        return a + (b - self._read(2, network, name).to(a.dtype)) * weight

    def _read(self, number: int, network: str, name: str) -> Tensor:
        rule, place = self._sources[number][network][name]
        return rule.read(self.models[number].components[network].tensors[rule.theirs])[place]


def merge(
    first: str | Path,
    second: str | Path,
    path: Path | str,
    *,
    third: str | Path | None = None,
    weight: float = 0.5,
    blocks: Mapping[str, float] | None = None,
    prediction: str | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    told: Told | None = None,
) -> Path:
    """Write a mixture of models as one .safetensors file, or as a folder; return its path.

    With `third` the difference between the second and it is added to the first, else the first two are weighed. What
    is not weights (configurations, tokenizers, defaults) is the first's. `dtype`: by default what the first has.
    Raises WeightsError for models that are not alike, RequestError for a block that they do not have, and what
    `open_model` and `save_file` raise.
    """
    models = [None if name is None else open_model(name, prediction=prediction) for name in (first, second, third)]
    a, b, c = models
    assert a is not None and b is not None
    merger = Merger(a, b, c, Mix(weight, blocks or {}))
    path, model = Path(path), hollow(a, Path(str(first)).name)
    if path.suffix == ".safetensors":
        with written_aside(path, overwrite=overwrite) as aside:
            write(merger, single_rules(model), aside, metadata_of(model), dtype, told)
        return path
    with folder_written_aside(path, overwrite=overwrite) as folder:

        def write_network(name: str, file: Path) -> None:
            names = list(dict((each, network) for each, network, _ in networks_of(model))[name].state_dict())
            write(merger, [(name, rule) for rule in identity(names)], file, {"format": "pt"}, dtype, told)

        write_folder(model, folder, write_network)
    return path


def write(
    merger: Merger,
    rules: Sequence[tuple[str, Rule]],
    path: Path,
    metadata: Mapping[str, str],
    dtype: torch.dtype | None,
    told: Told | None,
) -> None:
    """Write tensors of a mixture under the names that the rules give them."""
    states = {name: component.part.network.state_dict() for name, component in merger.models[0].components.items()}
    found = {rule.theirs: (network, rule) for network, rule in rules}
    outline: Outline = {
        theirs: (
            dtype or merger.stored(network, rule.ours[0]),
            their_shapes((rule,), states[network])[theirs],
        )
        for theirs, (network, rule) in found.items()
    }

    def produce(theirs: str) -> Tensor:
        network, rule = found[theirs]
        return rule.write([merger.tensor(network, name) for name in rule.ours]).to(outline[theirs][0])

    write_stream(path, outline, produce, metadata, told=told)


def check_alike(first: Opened, other: Opened) -> None:
    """Raise WeightsError unless two models have the same networks and predict the same."""
    if first.prediction != other.prediction:
        raise WeightsError(
            f"{other.path} predicts {other.prediction or 'what nothing tells'} and {first.path} "
            f"{first.prediction or 'what nothing tells'}; models are merged with others of their kind."
        )
    if first.family.text != other.family.text:
        raise WeightsError(
            f"{other.path} is {other.family.title} and {first.path} {first.family.title}; name models of one kind."
        )
    for name, component in first.components.items():
        ours = component.part.network.state_dict()
        theirs = other.components[name].part.network.state_dict()
        wrong = [key for key in ours if key not in theirs or not fits(key, ours[key].shape, theirs[key].shape)]
        if wrong or len(ours) != len(theirs):
            what = f"{wrong[0]!r} is another" if wrong else "it has more tensors"
            raise WeightsError(f"{other.path} has another {name} than {first.path}: {what}; they cannot be merged.")


def fits(name: str, mine: Sequence[int], theirs: Sequence[int]) -> bool:
    """Say whether two shapes can be mixed: equal, or a first convolution with more channels than the other's."""
    if name == FIRST and len(mine) == len(theirs) == 4 and mine[1] > theirs[1]:
        return (mine[0], *mine[2:]) == (theirs[0], *theirs[2:])
    return tuple(mine) == tuple(theirs)


def block_numbers(model: Opened) -> dict[str, str]:
    """Return the number of the block that each tensor of the UNet is in, "" for those outside of the blocks."""
    network = model.unet.part.network
    assert isinstance(network, UNet)
    found = {}
    for rule in unet_naming(network.config, list(network.state_dict())):
        for short, module in NUMBERED_MODULES.items():
            if rule.theirs.startswith(module):
                number = 0 if short == "M" else int(rule.theirs.split(".")[1])
                found[rule.ours[0]] = f"{short}{number:02}"
    return found


def check_blocks(mix: Mix, model: Opened, numbers: Mapping[str, str]) -> None:
    """Raise RequestError for a block that the model does not have."""
    names = [
        f"{network}.{name}"
        for network, component in model.components.items()
        for name in component.part.network.state_dict()
    ]
    for block in mix.blocks:
        if block not in numbers.values() and not any(name == block or name.startswith(f"{block}.") for name in names):
            known = sorted(set(numbers.values()))
            raise RequestError(
                f"there is no block {block!r}; there are {known[0]} to {known[-1]}, {', '.join(model.components)}, and "
                "parts of them such as unet.down_blocks.1.",
                "blocks",
            )
