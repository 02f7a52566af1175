"""The start of a trajectory: a batch's denoiser with all that a request asks for, its first latent and its noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato import operations as op
from sfumato.controls.steering import steered
from sfumato.diffusion.denoiser import Denoise
from sfumato.diffusion.guidance import Scale
from sfumato.diffusion.noise import NoiseSource, fresh_noise, noise_source
from sfumato.diffusion.sampling import Sampling
from sfumato.diffusion.soft import differential, soft
from sfumato.diffusion.variation import VariedNoise
from sfumato.diffusion.wrappers import handed_over, inpaint
from sfumato.instructed import instructed, seen
from sfumato.job import Job
from sfumato.nn.autoencoder import Area, Posterior, tile_areas
from sfumato.request import Request
from sfumato.text.told import Told


@dataclass(frozen=True)
class Batch:
    """Pictures that go through the network together: their numbers in the request, and what is told of them.

    `refining` is what the refiner is told of them and of their negatives, where there is one.
    """

    pictures: tuple[int, ...]
    positive: Told
    negative: Told
    refining: tuple[Told, Told] | None = None


@dataclass(frozen=True)
class Run:
    """The start of a trajectory: a denoiser, the first latent [B, C, h, w], the levels and the noise of the steps.

    `held` is, in inpainting by blending, what stays as it is: the latent [B, C, h, w] and the mask [1, 1, h, w].
    `unconditional` is the denoiser of the negative prompts, for samplers that ask it.
    """

    denoise: Denoise
    x: Tensor
    sigmas: list[float]
    noise: NoiseSource
    held: tuple[Tensor, Tensor] | None = None
    unconditional: Denoise | None = None

    def leave(self, x: Tensor, sampling: Sampling) -> Tensor:
        """The latent of the last x. What is held is put back clean, where a run ends above level 0."""
        latent = sampling.leave(x, self.sigmas[-1])
        if self.held is None:
            return latent
        known, mask = self.held
        return mask * latent + (1 - mask) * known


def begin(job: Job, batch: Batch, begun: Posterior | None = None) -> Run:
    """The start of a batch's trajectory: from noise, or from the start picture with noise, inpainting or not.

    A second pass begins with what was `begun`, whatever its strength.
    Noise is drawn in diffusers' order: the posterior of the picture where it is needed, the start, the posterior of the
    masked picture for nine-channel networks, then the steps.
    """
    model, request = job.model, job.request
    assert request.guidance is not None
    sigmas = job.levels
    lookup = job.sampling.lookup(model.schedule, sigmas)
    # the other rules begin with the picture at any strength
    from_noise = begun is None and request.strength in (None, 1) and (request.strength_rule or "share") == "share"
    source = noises(job, batch)
    blends = job.mask is not None and not model.family.inpainting
    drawn = source.draw("posterior") if blends or not from_noise else None
    known = None if drawn is None else (begun or job.posterior).sample(drawn)
    noise = source.start()
    if from_noise or known is None or drawn is None:
        x = op.start(noise, job.sampling, sigmas)
    else:
        x = op.start_from(under_mask(job, known, drawn, noise), noise, sigmas)
    positive, negative, refining = batch.positive, batch.negative, batch.refining
    if model.family.inpainting:
        masked = job.masked_posterior.sample(source.draw("masked"))
        mask = op.nearest_mask(job.weights, job.canvas.cells)
        positive = op.inpainting_condition(positive, mask, masked)
        negative = op.inpainting_condition(negative, mask, masked)
        if refining is not None:
            refining = (
                op.inpainting_condition(refining[0], mask, masked),
                op.inpainting_condition(refining[1], mask, masked),
            )
    windows = windows_of(job)
    positive, negative = steered(positive, negative, job.steerings, sigmas)
    guidance = guidance_of(request, job.sampling.guidance_scale(request.guidance, sigmas))
    if model.family.instructed:
        assert request.image_guidance is not None
        picture = seen(job.posterior, model)
        denoise = instructed(model, (positive, negative), picture, guidance, request.image_guidance, lookup)
        pair = (denoise, denoise)
    else:
        pair = op.guided_beside(model, positive, negative, guidance, lookup)
    if refining is not None:
        pair = refined(job, refining, guidance, pair)
    if windows is not None:
        pair = (op.windowed(pair[0], *windows), op.windowed(pair[1], *windows))
    if not blends or known is None:
        return Run(pair[0], x, sigmas, source, unconditional=pair[1])
    mask = op.covering_mask(job.weights, model.stride)
    if request.differential:  # what is held is the picture with noise from the start, whatever the others begin with
        x = torch.where(job.shares < 1, op.start_from(known, noise, sigmas), x)
    denoise, unconditional = (masked_denoise(job, each, known, noise) for each in pair)
    return Run(denoise, x, sigmas, source, (known, mask), unconditional)


def masked_denoise(job: Job, denoise: Denoise, known: Tensor, noise: Tensor) -> Denoise:
    """The denoiser that keeps what is known outside of the mask, and where the mask is grey what the request says."""
    request = job.request
    if request.differential:
        return differential(denoise, known, job.shares, noise, job.levels)
    if request.soft_inpainting is not None:
        return soft(denoise, known, job.shares, noise, **request.soft_inpainting.blending)
    return inpaint(denoise, known, op.covering_mask(job.weights, job.model.stride), noise)


def windows_of(job: Job) -> tuple[list[Area], int] | None:
    """The parts of the latent that the network sees one at a time, and over how many cells they are blended."""
    windows = job.request.windows
    if windows is None:
        return None
    assert windows.size is not None and windows.overlap is not None
    stride = job.model.stride
    overlap = max(windows.overlap // stride, 1)
    areas = tile_areas(*job.canvas.cells, max(windows.size // stride, overlap + 1), overlap)
    return None if len(areas) == 1 else (areas, overlap)


def noises(job: Job, batch: Batch) -> NoiseSource:
    """The random numbers of a batch: each picture's own, with the variation and the size that the request asks for."""
    model, request = job.model, job.request
    seeds = [request.seed_of(index) for index in batch.pictures]
    shape = (model.latent_channels, *job.canvas.cells)
    source = noise_source(
        request.noise,
        seeds,
        shape,
        step_delta=request.step_seed_delta or 0,
        device=model.device,
        stage=job.stage,
    )
    if request.variation is None and request.seed_size is None:
        return source
    others, strength = None, 0.0
    if request.variation is not None:
        assert request.variation.seed is not None
        strength = request.variation.strength
        others = [request.variation.seed + index for index in batch.pictures]
    width, height = request.seed_size or (0, 0)
    cells = (height // model.stride, width // model.stride) if request.seed_size else job.canvas.cells
    fresh = fresh_noise(request.noise)
    return VariedNoise(source, fresh, tuple(seeds), shape, others=others, strength=strength, cells=cells)


def under_mask(job: Job, known: Tensor, drawn: Tensor, noise: Tensor) -> Tensor:
    """The start picture's latent [B, C, h, w] with what the request wants under the mask before noise is added.

    `drawn` is the noise of the posterior. Latent noise is the start noise itself, as A1111 has it.
    """
    content = job.request.masked_content
    if content is None or content == "original":
        return known
    mask = op.covering_mask(job.weights, job.model.stride)
    if content == "fill":
        return mask * job.filled_posterior.sample(drawn) + (1 - mask) * known
    return (1 - mask) * known if content == "nothing" else mask * noise + (1 - mask) * known


def refined(
    job: Job, told: tuple[Told, Told], guidance: op.Guidance, pair: tuple[Denoise, Denoise]
) -> tuple[Denoise, Denoise]:
    """The model's denoisers, guided and unconditional, and the refiner's from its part of the timesteps on."""
    refiner, part = job.model.refiner, job.request.refiner
    assert refiner is not None and part is not None
    lookup = job.sampling.lookup(job.model.schedule, job.levels)
    steps = len(job.model.schedule)
    first = round(steps - part.at * steps)  # the timestep below which it draws, as diffusers rounds
    own = job.sampling.lookup(refiner.schedule, job.levels)
    others = op.guided_beside(refiner, *told, guidance, own)
    one, other = (
        handed_over(mine, its, lambda sigma: lookup(sigma) < first) for mine, its in zip(pair, others, strict=True)
    )
    return one, other


def guidance_of(request: Request, plus_plus: Scale | None) -> op.Guidance:
    """The guidance of a resolved request, in a run that has a scale for each level or None."""
    assert request.guidance is not None
    return op.Guidance(
        scale=request.guidance,
        plus_plus=plus_plus,
        rescale=request.guidance_rescale or 0.0,
        interval=request.guidance_interval or (0.0, 1.0),
        apg=request.apg,
        dynamic_thresholding=request.dynamic_thresholding,
        perturbed_attention=request.perturbed_attention,
        self_attention=request.self_attention_guidance,
    )
