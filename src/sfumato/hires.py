"""The second pass over a picture that was drawn small: enlarged, noised a part of the way back, and drawn on."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato import guides
from sfumato import operations as op
from sfumato.diffusion.presets import with_eta, with_overrides
from sfumato.diffusion.samplers import TAKES_ETA
from sfumato.images import to_pixels
from sfumato.nn.autoencoder import Posterior
from sfumato.request import LATENT_UPSCALERS, Hires
from sfumato.request.together import second_request
from sfumato.text.words import check_second_loras
from sfumato.upscaling import check_upscaler, enlarge, enlarge_latent
from sfumato.wording import filled_in

if TYPE_CHECKING:
    from sfumato.job import Job

STAGE = "hires"  # what its draws of noise are keyed by, beside their purpose


def second_pass(job: "Job", hires: Hires) -> "Job":
    """The job of the second pass. Raises RequestError for a size that is too large, or an unknown upscaler."""
    sampling = with_overrides(job.sampling, sampler=hires.sampler, spacing=hires.spacing)
    again = second_request(job.request, takes_eta=sampling.sampler in TAKES_ETA)
    check_upscaler(hires.upscaler, "hires.upscaler")
    assert again.width is not None and again.height is not None
    sampling = sampling if again.eta is None else with_eta(sampling, again.eta)
    guides.check(job.model, again, sampling)
    said = filled_in(again) if hires.says_other_words else job.said
    check_second_loras(job.request, again, (job.said, said), job.pictures)
    return replace(
        job,
        request=again,
        sampling=sampling,
        canvas=op.Canvas(again.width, again.height, job.model.stride),
        said=said,
        stage=STAGE,
        before=len(job.levels) - 1,
    )


def enlarged(first: "Job", second: "Job", latent: Tensor | None, upscaler: str) -> Posterior:
    """The first pass's latents [B, C, h, w] at the size of the second, as distributions; its start picture without.

    Enlarged latents are certain; enlarged pixels go through the autoencoder.
    """
    if upscaler in LATENT_UPSCALERS:
        larger = enlarge_latent(first.posterior.mean if latent is None else latent, second.canvas.cells, upscaler)
        return Posterior(larger, torch.zeros_like(larger))
    if latent is None:
        assert first.picture is not None
        decoded = [to_pixels([first.picture])]
    else:
        decoded = [first.canvas.crop(op.decode(first.model, one)).clamp(-1, 1) for one in torch.split(latent, 1)]
    found = []
    for pixels in decoded:
        larger = enlarge(pixels, second.canvas.shape, upscaler, second.model.device)
        found.append(op.encode_image(second.model, second.canvas.pad(larger)))
    return Posterior(torch.cat([each.mean for each in found]), torch.cat([each.std for each in found]))
