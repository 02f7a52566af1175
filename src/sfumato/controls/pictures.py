"""From a picture to what a control network sees of it: brought to the size of the request, then preprocessed."""

import torch
from PIL import Image
from torch import Tensor

from sfumato.controls.preprocess import preprocess
from sfumato.images import RESIZES, mask_weights, to_levels, to_pixels
from sfumato.request import Control

HIDDEN = -1.0  # what an inpainting ControlNet sees where is to be repainted, in place of 0 to 1


def control_picture(control: Control, picture: Image.Image, size: tuple[int, int], mask: Image.Image | None) -> Tensor:
    """What a control's network sees, [1, 3, H, W] in [0, 1], from an RGB picture of any size.

    `size`: width and height in pixels; `mask`: that of the request, of this size, for the preprocessor that needs one.
    """
    made = preprocess(RESIZES[control.resize](picture, *size), control.preprocessor, control.options)
    pixels = to_levels(to_pixels([made])) / 255.0
    if control.preprocessor != "inpaint":
        return pixels
    assert mask is not None, "check_together refuses this preprocessor without a mask"
    return torch.where(mask_weights(mask) > 0.5, HIDDEN, pixels)
