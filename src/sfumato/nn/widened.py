"""A UNet that sees more than the latent, made from one that sees the latent alone. Rombach et al. 2022, section 4.5."""

from dataclasses import replace

import torch
from torch import nn

from sfumato.nn.lora import twin
from sfumato.nn.unet import UNet


@torch.no_grad()
def widened(unet: UNet) -> UNet:
    """A UNet with the same weights that also sees a mask and a masked latent, which change nothing yet.

    It shares all tensors with the first but those of its first layer.
    """
    channels = 2 * unet.config.out_channels + 1
    second = twin(unet)
    second.config = replace(unet.config, in_channels=channels)
    layer = second.conv_in
    old, bias = layer.weight, layer.bias
    assert bias is not None
    shape = (len(old), channels, *old.shape[2:])
    new = torch.empty(shape, dtype=old.dtype, device=old.device, memory_format=torch.channels_last).zero_()
    new[:, : old.shape[1]] = old
    layer.in_channels = channels
    layer.weight = nn.Parameter(new, requires_grad=False)
    layer.bias = nn.Parameter(bias.clone(), requires_grad=False)
    return second
