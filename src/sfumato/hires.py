"""The second pass over a picture that was drawn small: enlarged, noised a part of the way back, and drawn on."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato import guides
from sfumato import operations as op
from sfumato.diffusion.presets import with_overrides
from sfumato.errors import ModelNotFoundError, RequestError
from sfumato.images import to_pixels
from sfumato.nn.autoencoder import Posterior
from sfumato.request import LATENT_UPSCALERS, PIXEL_UPSCALERS, SIDE_RANGE, Hires, Request
from sfumato.request.said import Said
from sfumato.text.words import words
from sfumato.upscaling import enlarge, enlarge_latent, network_file
from sfumato.wording import filled_in

if TYPE_CHECKING:
    from sfumato.job import Job

STAGE = "hires"  # what its draws of noise are keyed by, beside their purpose


def second_pass(job: "Job", hires: Hires) -> "Job":
    """The job of the second pass. Raises RequestError for a size that is too large, or an unknown upscaler."""
    request = job.request
    assert request.width is not None and request.height is not None
    width, height = hires.size_for(request.width, request.height)
    if max(width, height) > SIDE_RANGE[1]:
        raise RequestError(f"hires would be {width}x{height}; a side has at most {SIDE_RANGE[1]} pixels", "hires")
    if hires.upscaler not in (*LATENT_UPSCALERS, *PIXEL_UPSCALERS):
        try:
            network_file(hires.upscaler)
        except ModelNotFoundError as error:
            raise RequestError(f"hires.upscaler is {hires.upscaler!r}: {error}", "hires.upscaler") from error
    again = replace(
        request,
        hires=None,
        prompt=request.prompt if hires.prompt is None else (hires.prompt,) * len(request.prompts),
        negative_prompt=request.negative_prompt if hires.negative_prompt is None else hires.negative_prompt,
        steps=hires.steps or request.steps,
        guidance=request.guidance if hires.guidance is None else hires.guidance,
        sampler=hires.sampler or request.sampler,
        spacing=hires.spacing or (None if hires.sampler else request.spacing),
        strength=hires.strength,
        strength_rule=hires.strength_rule,
        width=width,
        height=height,
    )
    guides.check(job.model, again)
    other_words = hires.prompt is not None or hires.negative_prompt is not None
    said = filled_in(again) if other_words else job.said
    _check_loras(job, again, said)
    sampling = with_overrides(job.sampling, sampler=hires.sampler, spacing=hires.spacing)
    return replace(
        job,
        request=again,
        sampling=sampling,
        canvas=op.Canvas(width, height, job.model.stride),
        said=said,
        stage=STAGE,
    )


def _check_loras(job: "Job", again: Request, said: Mapping[int, Said]) -> None:
    """Raise RequestError for a LoRA that the second pass's prompt alone names: both passes are drawn by one model."""
    for index in job.pictures:
        acting = {*job.request.loras, *words(job.request, index, job.said).loras}
        alone = [lora for lora in words(again, index, said).loras if lora not in acting]
        if alone:
            raise RequestError(
                f"hires.prompt names the LoRA {alone[0]}, which does not act in the first pass; both passes "
                "have the same LoRAs: name it in the prompt or among the loras too, or leave it out",
                "hires.prompt",
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
