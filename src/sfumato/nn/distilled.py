"""UNets that have learnt guidance: its scale is embedded beside the timestep, and one branch answers for two."""

import torch

from sfumato.nn.blocks import sinusoids
from sfumato.nn.lora import twin
from sfumato.nn.unet import UNet


def embeds_guidance(unet: UNet) -> bool:
    """Has the network been distilled with guidance in it?"""
    return unet.config.time_cond_proj_dim is not None


@torch.no_grad()
def with_guidance(unet: UNet, scale: float) -> UNet:
    """A second UNet that shares the weights of the first and answers as with guidance at `scale`; 1 is none.

    What is embedded is 1000 (scale - 1), with sines first. Meng et al. 2023; Luo et al. 2023 (LCM), section 4.2.
    """
    width = unet.config.time_cond_proj_dim
    assert width is not None
    second = twin(unet)
    second.time_embedding.condition = sinusoids(torch.tensor([1000 * (scale - 1)]), width, cosine_first=False, shift=1)
    return second
