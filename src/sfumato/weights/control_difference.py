"""A ControlNet that is stored as its difference to the UNet that it was made of, to be added to any UNet of that kind.

What is new in it is there whole. The files have cldm's names and are marked by a tensor that is called `difference`.
"""

import torch
from torch import Tensor

from sfumato.nn.lora import in_place_of
from sfumato.nn.unet import UNet
from sfumato.weights.files import check_finite
from sfumato.weights.opened import Component
from sfumato.weights.recognise import Shapes

MARK = "difference"


def is_difference(shapes: Shapes) -> bool:
    """Say whether the tensors are the difference of a ControlNet to a UNet."""
    return mark_of(shapes) is not None


def mark_of(shapes: Shapes) -> str | None:
    """Return the name of the tensor that marks such a file; None if it is none."""
    return next((name for name in (MARK, f"control_model.{MARK}") if name in shapes), None)


@torch.no_grad()
def fill_added(component: Component, unet: UNet) -> None:
    """Give a ControlNet the weights of a UNet with a file's difference added, in the UNet's precision.

    The sums are made in float32. Raises ModelFileError for a weight that is not finite.
    """
    like, base = unet.conv_in.weight, dict(unet.named_parameters())
    state: dict[str, Tensor] = {}
    for rule in component.part.naming:
        tensor = component.tensors[rule.theirs]
        check_finite(rule.theirs, tensor, component.tensors.path_of(rule.theirs))
        for name, value in zip(rule.ours, rule.read(tensor), strict=True):
            if name not in base:
                state[name] = value.to(like.device, like.dtype)
                continue
            own = base[name] if base[name].shape == value.shape else base[name][:, : value.shape[1]]  # a UNet's mask
            state[name] = in_place_of(own, own.float() + value.to(own.device, torch.float32))
    component.part.network.load_state_dict(state, strict=True, assign=True)
    component.part.network.requires_grad_(False).eval()
