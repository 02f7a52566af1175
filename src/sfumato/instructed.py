"""Models that see a picture beside the latent and follow an instruction: InstructPix2Pix and those of its kind.

Brooks et al. 2022, "InstructPix2Pix: Learning to Follow Image Editing Instructions", section 3.2.
"""

from dataclasses import replace

import torch
from torch import Tensor

from sfumato.diffusion.denoiser import Denoise, Lookup
from sfumato.diffusion.wrappers import guide_by_picture, interval, sigma_at
from sfumato.model import Model
from sfumato.nn.autoencoder import Posterior
from sfumato.operations import Guidance, conditioned
from sfumato.text.told import Told


def seen(posterior: Posterior, model: Model) -> Tensor:
    """What the network sees of a picture, [1, C, h, w]: the mean of its latent, without noise.

    It is not scaled, unless the model's index says that it was trained as Stability AI's CosXL Edit was.
    """
    return posterior.mean if model.options.get("is_cosxl_edit") else posterior.mean / model.scaling_factor


def instructed(
    model: Model,
    pair: tuple[Told, Told],
    picture: Tensor,
    guidance: Guidance,
    image_guidance: float,
    lookup: Lookup,
) -> Denoise:
    """The model as a denoiser with two guidances: by the words and the picture, by the picture, and by neither.

    `pair` is what the prompt and the negative prompt tell, `picture` [1, C, h, w] what `seen` gives. Both guidances at
    1 ask the prompt with the picture alone, as does what is outside of the guidance's interval.
    """
    positive, negative = pair
    shown = picture.expand(len(positive), -1, -1, -1)
    hidden = torch.zeros_like(shown)
    conditional = conditioned(model, positive.each(lambda each: replace(each, concat=shown)), lookup)
    if guidance.scale == 1 and image_guidance == 1:
        return conditional
    every = guide_by_picture(
        conditional,
        conditioned(model, negative.each(lambda each: replace(each, concat=shown)), lookup),
        conditioned(model, negative.each(lambda each: replace(each, concat=hidden)), lookup),
        (guidance.scale, image_guidance),
        rescale=guidance.rescale,
        prediction=model.prediction,
    )
    first, last = guidance.interval
    if (first, last) == (0.0, 1.0):
        return every
    return interval(every, conditional, sigma_at(model.schedule, last), sigma_at(model.schedule, first))
