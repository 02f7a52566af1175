"""A Control-LoRA: a ControlNet as low-rank changes of the UNet that it steers, and whole what is new in it.

Stability AI's files, which have cldm's names: `X.up` and `X.down` beside each other make the weight W + up @ down of W,
the UNet's own; other tensors are there as they are; what is not there is the UNet's. The files are marked by a tensor
that is called `lora_controlnet`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfumato.errors import WeightsError
from sfumato.nn.controlnet import ControlNet
from sfumato.nn.lora import in_place_of
from sfumato.nn.unet import UNet
from sfumato.weights.build import on_meta
from sfumato.weights.files import TensorFile, check_finite
from sfumato.weights.header import FLOATING
from sfumato.weights.naming import Naming, Rule
from sfumato.weights.recognise import Shapes

MARK = "lora_controlnet"
UP, DOWN, WEIGHT = ".up", ".down", ".weight"


def is_control_lora(shapes: Shapes) -> bool:
    """Say whether the tensors are a Control-LoRA's."""
    return MARK in shapes


def whole_shapes(shapes: Shapes) -> Shapes:
    """Return the shapes of the weights that a file's pairs change, and of its other tensors."""
    found = {name: shape for name, shape in shapes.items() if name != MARK and not name.endswith((UP, DOWN))}
    for name, up in shapes.items():
        down = shapes.get(name.removesuffix(UP) + DOWN, ())
        if name.endswith(UP) and up and len(down) > 1:
            found[name.removesuffix(UP) + WEIGHT] = (up[0], *down[1:])
    return found


@dataclass(frozen=True)
class ControlLora:
    """An opened file: our name -> the rule by which it is read whole, or its up and down."""

    path: Path
    tensors: TensorFile
    whole: Mapping[str, Rule]
    pairs: Mapping[str, tuple[str, str]]

    @torch.no_grad()
    def fill(self, network: ControlNet, unet: UNet) -> None:
        """Give the network its weights; what the file does not change it shares with the UNet.

        Raises ModelFileError for a weight that is not finite.
        """
        like, base = unet.conv_in.weight, dict(unet.named_parameters())
        state: dict[str, Tensor] = {}
        for name, empty in network.state_dict().items():
            if name in self.whole:
                rule = self.whole[name]
                state[name] = self._read(rule.theirs).to(like.device, like.dtype)
            else:
                own = base[name] if base[name].shape == empty.shape else base[name][:, : empty.shape[1]]
                state[name] = self._changed(name, own) if name in self.pairs else own
        network.load_state_dict(state, strict=True, assign=True)
        network.requires_grad_(False).eval()

    def _changed(self, name: str, own: Tensor) -> Tensor:
        up, down = (self._read(each).to(own.device, torch.float32).flatten(1) for each in self.pairs[name])
        return in_place_of(own, torch.addmm(own.flatten(1).float(), up, down).view(own.shape))

    def _read(self, name: str) -> Tensor:
        tensor = self.tensors[name]
        check_finite(name, tensor, self.path)
        return tensor


def control_lora(path: Path, tensors: TensorFile, network: ControlNet, naming: Naming) -> ControlLora:
    """Compare a Control-LoRA's file with the ControlNet that it makes of a UNet, without reading a weight.

    Raises WeightsError for tensors that belong to nothing or have another shape, or if something is missing.
    """
    infos = tensors.infos
    shapes = {name: tuple(each.shape) for name, each in network.state_dict().items()}
    unet = on_meta(lambda: UNet(network.control.unet))
    base = {name: tuple(each.shape) for name, each in unet.named_parameters()}
    whole: dict[str, Rule] = {}
    pairs: dict[str, tuple[str, str]] = {}
    wrong, missing = [], []
    known = {MARK}
    for rule in naming:
        (ours,) = rule.ours
        shape = shapes[ours]
        halves = tuple(rule.theirs.removesuffix(WEIGHT) + each for each in (UP, DOWN))
        if rule.theirs in infos:
            whole[ours], known = rule, known | {rule.theirs}
            fits = tuple(infos[rule.theirs].shape) == shape
        elif rule.theirs.endswith(WEIGHT) and set(halves) <= infos.keys():
            pairs[ours], known = (halves[0], halves[1]), known | set(halves)
            up, down = (infos[each].shape for each in halves)
            fits = makes(up, down) == (shape[0], torch.Size(shape[1:]).numel())
        else:
            fits = True
            if base.get(ours) != shape:
                missing.append(rule.theirs)
        if not fits:
            wrong.append(rule.theirs)
    unknown = sorted(set(infos) - known)
    numbers = [name for name in known - {MARK} if infos[name].dtype not in FLOATING]
    for what, names in (
        ("missing", missing),
        ("of another shape", wrong),
        ("too many", unknown),
        ("no numbers", numbers),
    ):
        if names:
            raise WeightsError(
                f"{path} is no whole Control-LoRA for this UNet: {len(names)} of its tensors {what}, first "
                f"{names[0]!r}. Use one of the model's family, and get it again if it should be one."
            )
    return ControlLora(path, tensors, whole, pairs)


def makes(up: tuple[int, ...], down: tuple[int, ...]) -> tuple[int, int] | None:
    """Return the rows and columns of the product of two tensors; None if they have none."""
    if len(up) < 2 or len(down) < 2 or torch.Size(up[1:]).numel() != down[0]:
        return None
    return up[0], torch.Size(down[1:]).numel()
