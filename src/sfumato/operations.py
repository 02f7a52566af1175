"""The operations that everything is composed from: each a value in and a value out, on any model in memory.

Pixels are [B, 3, H, W] in [-1, 1]; latents [B, C, h, w] are scaled to unit variance; masks [B, 1, H, W] are in [0, 1]
with 1 = repaint. Sampling is in float32 whatever the network's precision.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sfumato.diffusion.denoiser import Denoise, Lookup
from sfumato.diffusion.guidance import (
    Combine,
    Degrade,
    Projected,
    Scale,
    Thresholded,
    away,
    constant,
    halved,
    halves,
    once,
    received_mask,
    self_attention,
    steered,
    with_contrast,
)
from sfumato.diffusion.sampling import Sampling
from sfumato.diffusion.wrappers import combine, interval, sigma_at
from sfumato.errors import RequestError
from sfumato.images import (
    PictureSource,
    open_picture,
    pad_to_multiple,
    psnr,
    ssim,
    to_levels,
    to_pictures,
    to_pixels,
    to_rgb,
)
from sfumato.model import Model, autoencoder_order
from sfumato.nn.autoencoder import Area, Autoencoder, Posterior, blend, decode_tiled, encode_tiled
from sfumato.nn.banded import decode_banded, encode_banded
from sfumato.nn.circular import CircularConv2d
from sfumato.nn.distilled import embeds_guidance, with_guidance
from sfumato.nn.unet import UNet
from sfumato.nn.watched import WatchedAttention, perturbed, self_attentions, watched
from sfumato.request import SIDE_RANGE, Dialect
from sfumato.request.guides import Apg, DynamicThresholding, PerturbedAttention, SelfAttentionGuidance
from sfumato.text.encode import NEGATIVE_AESTHETIC_SCORE, SizeIds
from sfumato.text.telling import Wanted, tell
from sfumato.text.told import Composition, Told, together

SIZE_IDS = (SizeIds(), SizeIds(score=NEGATIVE_AESTHETIC_SCORE))  # diffusers' defaults
Way = Literal["whole", "banded", "tiled"]
"""How a picture goes through the autoencoder: whole, in exact bands, or in blended tiles."""

ENCODINGS: dict[Way, Callable[[Autoencoder, Tensor], Posterior]] = {
    "whole": Autoencoder.encode,
    "banded": encode_banded,
    "tiled": encode_tiled,
}
DECODINGS: dict[Way, Callable[[Autoencoder, Tensor], Tensor]] = {
    "whole": Autoencoder.decode,
    "banded": decode_banded,
    "tiled": decode_tiled,
}
WHOLE_UP_TO = 1536 * 1536  # pixels; at 2048 x 2048 an SD autoencoder's largest activation alone is 4 GiB in float32
BANDED_UP_TO = 3072 * 3072  # pixels; in bands its largest map is 0.5 KiB a pixel and what it is made from a quarter KiB


@dataclass(frozen=True)
class Canvas:
    """The size that was asked for, and the next whole number of latent cells that it is worked at.

    What is worked at is as large or larger on the right and below; the picture is its top left part.
    """

    width: int
    height: int
    stride: int

    @property
    def working(self) -> tuple[int, int]:
        """Width and height that are worked at, in pixels."""
        return self.width + -self.width % self.stride, self.height + -self.height % self.stride

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of latent cells."""
        width, height = self.working
        return height // self.stride, width // self.stride

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width that were asked for."""
        return self.height, self.width

    def pad(self, pixels: Tensor) -> Tensor:
        """[B, C, height, width] at the size that is worked at; the last row and column are repeated."""
        return pad_to_multiple(pixels, self.stride)

    def crop(self, pixels: Tensor) -> Tensor:
        """[B, C, H, W] at the size that was asked for."""
        return pixels[..., : self.height, : self.width]


def encode_text(
    model: Model,
    prompt: str | Sequence[Wanted],
    negative_prompt: str,
    canvas: Canvas,
    *,
    sigmas: Sequence[float] = (),
    dialect: Dialect = "a1111",
    clip_skip: int = 0,
    ids: tuple[SizeIds, SizeIds] = SIZE_IDS,
    before: int | None = None,
) -> tuple[Told, Told]:
    """What is told of one prompt, or of several for places, and of its negative, of one length.

    The canvas is SDXL's size. `sigmas` are the noise levels of the run, for prompts that change in its course, and
    `before` the steps of a first pass; `ids` what SDXL is told about the picture and about what it should not be.
    """
    width, height = canvas.working
    sized = partial(model.text.sized, height=height, width=width)
    both = (partial(sized, **vars(ids[0])), partial(sized, **vars(ids[1])))
    wanted = [Wanted(prompt)] if isinstance(prompt, str) else prompt
    return tell(
        model.text, wanted, negative_prompt, sigmas, dialect=dialect, clip_skip=clip_skip, sized=both, before=before
    )


@torch.no_grad()
def encode_image(model: Model, pixels: Tensor) -> Posterior:
    """The distribution of scaled latents of pixels whose size is a multiple of the model's stride, in float32."""
    autoencoder = model.autoencoder
    first = next(autoencoder.parameters())
    pixels = pixels.to(first)
    posterior = ENCODINGS[way_of(model, pixels.shape[-1] * pixels.shape[-2])](autoencoder, pixels)
    return Posterior(posterior.mean.float() * model.scaling_factor, posterior.std.float() * model.scaling_factor)


@torch.no_grad()
def decode(model: Model, latent: Tensor) -> Tensor:
    """The pixels of scaled latents, [B, 3, H, W] float32, one picture at a time.

    A half precision that overflows is not shown: that picture is decoded again in float32.
    """
    pixels = latent.shape[-1] * latent.shape[-2] * model.stride**2
    run = DECODINGS[way_of(model, pixels)]
    pictures = [_decode_one(model.autoencoder, one, run) for one in torch.split(latent / model.scaling_factor, 1)]
    return torch.cat(pictures)


def way_of(model: Model, pixels: int) -> Way:
    """How pictures of so many pixels go through the autoencoder.

    A picture that goes on at its other edge is done whole: a band or a tile has edges. Where a model has its own bound,
    for little memory, it is tiles above that.
    """
    if pixels <= (model.tiled_above or WHOLE_UP_TO) or any(wraps(model)):
        return "whole"
    if model.tiled_above:
        return "tiled"
    return "banded" if pixels <= BANDED_UP_TO else "tiled"


def _decode_one(autoencoder: Autoencoder, latent: Tensor, run: Callable[[Autoencoder, Tensor], Tensor]) -> Tensor:
    first = next(autoencoder.parameters())
    latent = latent.contiguous(memory_format=autoencoder_order(first.device))  # the order of its weights
    decoded = run(autoencoder, latent.to(first)).float()
    if first.dtype is not torch.float32 and not bool(torch.isfinite(decoded).all()):
        decoded = run(in_float32(autoencoder), latent.to(first.device, torch.float32))
    return decoded


def in_float32(autoencoder: Autoencoder) -> Autoencoder:
    """A copy in float32, on the same device."""
    wide = {id(each): nn.Parameter(each.float(), requires_grad=False) for each in autoencoder.parameters()}
    return copy.deepcopy(autoencoder, wide)


def conditioned(model: Model, told: Told, lookup: Lookup) -> Denoise:
    """The model's denoiser for what it is told."""
    if isinstance(told, Composition):
        return _composed(model, told, lookup)
    denoise = model.denoiser(lookup)
    moved = told.each(lambda each: each.to(model.device, model.dtype))

    @torch.no_grad()
    def call(x: Tensor, sigma: float) -> Tensor:
        return denoise(x, sigma, moved.at(sigma))

    return call


def _composed(model: Model, told: Composition, lookup: Lookup) -> Denoise:
    """The answer of several prompts, asked in one call."""

    def call(x: Tensor, sigma: float) -> Tensor:
        latents = x.chunk(2)[0] if told.both else x
        asked = told.asked(latents)
        count = len(asked) // len(latents)
        return told.answer(conditioned(model, asked, lookup)(torch.cat([latents] * count), sigma).chunk(count))

    return call


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How far to go from the negative prompt's answer to the prompt's and beyond; 1 asks the prompt alone.

    `plus_plus` is a scale for each noise level instead (`guidance.plus_plus`); `rescale` takes the contrast back to the
    prompt's own answer, by that share. Outside of `interval`, parts of the training timesteps from 0 (pure noise) to 1
    (clean), the prompt alone is asked. The others are as in `Request`.
    """

    scale: float
    plus_plus: Scale | None = None
    rescale: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)
    apg: Apg | None = None
    dynamic_thresholding: DynamicThresholding | None = None
    perturbed_attention: PerturbedAttention | None = None
    self_attention: SelfAttentionGuidance | None = None

    @property
    def asks_negative(self) -> bool:
        """Is the negative prompt's answer needed?"""
        return self.scale != 1 or self.plus_plus is not None

    def together(self) -> Combine:
        """The way to combine both answers, with a memory of its own."""
        if self.apg is not None:
            return Projected(self.apg.eta, self.apg.threshold, self.apg.momentum)
        if self.dynamic_thresholding is not None:
            return Thresholded(**asdict(self.dynamic_thresholding))
        return combine


def guided(model: Model, positive: Told, negative: Told, guidance: Guidance, lookup: Lookup) -> Denoise:
    """The model as a denoiser with guidance: one call on the doubled batch, or on the single one where 1 is enough.

    Perturbed-attention and self-attention guidance add a call each.
    """
    return guided_beside(model, positive, negative, guidance, lookup)[0]


def guided_beside(
    model: Model, positive: Told, negative: Told, guidance: Guidance, lookup: Lookup
) -> tuple[Denoise, Denoise]:
    """`guided`, and what was answered for the negative prompt in the same call; without guidance, for the prompt."""
    if embeds_guidance(model.unet):  # which answers with guidance itself
        model = replace(model, unet=with_guidance(model.unet, guidance.scale))
        guidance = replace(guidance, scale=1.0, plus_plus=None)
    alone = once(conditioned(model, positive, lookup))
    watching, attention = (model, None) if guidance.self_attention is None else watched_model(model)
    if guidance.asks_negative:
        if model.apart and guidance.self_attention is None:  # which looks into one call for both
            unconditional, conditional = (once(conditioned(model, told, lookup)) for told in (negative, positive))
        else:
            unconditional, conditional = halves(conditioned(watching, together([negative, positive]), lookup))
        scale = guidance.plus_plus or constant(guidance.scale)
        denoise = steered(conditional, unconditional, scale, together=guidance.together())
    else:
        denoise = conditional = unconditional = once(conditioned(watching, positive, lookup))
    if guidance.perturbed_attention is not None:
        denoise = _away_from_perturbed(model, denoise, conditional, positive, guidance.perturbed_attention, lookup)
    if guidance.self_attention is not None and attention is not None:
        again = conditioned(model, negative if guidance.asks_negative else positive, lookup)
        degrade = Degrade(partial(_looked_at, watching.unet, attention), guidance.self_attention.blur, wraps(model))
        strength = guidance.self_attention.scale
        denoise = self_attention(denoise, unconditional, again, degrade, strength, model.prediction)
    if guidance.rescale and guidance.asks_negative:
        denoise = with_contrast(denoise, conditional, guidance.rescale, model.prediction)
    first, last = guidance.interval
    if (first, last) == (0.0, 1.0):
        return denoise, unconditional
    low, high = sigma_at(model.schedule, last), sigma_at(model.schedule, first)
    return interval(denoise, alone, low, high), interval(unconditional, alone, low, high)


def _away_from_perturbed(
    model: Model, denoise: Denoise, conditional: Denoise, positive: Told, by: PerturbedAttention, lookup: Lookup
) -> Denoise:
    other = conditioned(
        replace(model, unet=perturbed(model.unet, by.among(list(self_attentions(model.unet))))), positive, lookup
    )
    last = len(model.schedule)

    def scale(sigma: float) -> float:
        return max(by.scale - by.adaptive * (last - lookup(sigma)), 0.0)

    return away(denoise, conditional, other, scale)


def watched_model(model: Model) -> tuple[Model, WatchedAttention]:
    """The model with a UNet whose attention at the lowest resolution can be read, and that attention."""
    unet, attention = watched(model.unet)
    return replace(model, unet=unet), attention


def _looked_at(unet: UNet, attention: WatchedAttention, latent: Tensor) -> Tensor:
    """Where the branch looked, of those that were asked together the first."""
    cells = halved((latent.shape[2], latent.shape[3]), unet.config.levels - 1)
    return received_mask(attention.received[: len(latent)], latent, cells)


def wraps(model: Model) -> tuple[bool, bool]:
    """Do maps go on at the other edge, along x and along y?"""
    first = model.unet.conv_in
    return (first.x, first.y) if isinstance(first, CircularConv2d) else (False, False)


def windowed(denoise: Denoise, areas: Sequence[Area], ramp: int) -> Denoise:
    """The denoiser asked about parts of a latent, one at a time, and blended over `ramp` cells where they overlap.

    Neighbours agree at every step, so that no seam is left. Bar-Tal et al. 2023, MultiDiffusion, equation 5.
    """

    def call(x: Tensor, sigma: float) -> Tensor:
        parts = ((denoise(x[:, :, rows, columns], sigma), rows, columns) for rows, columns in areas)
        return blend(parts, x.shape[2], x.shape[3], ramp)

    return call


def start(noise: Tensor, sampling: Sampling, sigmas: list[float]) -> Tensor:
    """The first latent of a run from nothing: start noise of unit variance at the highest level."""
    return noise * sampling.initial_scale(sigmas)


def start_from(latent: Tensor, noise: Tensor, sigmas: list[float]) -> Tensor:
    """The first latent of a run from a picture: its latent with noise of the first level."""
    return latent + noise * sigmas[0]


def inpainting_condition(told: Told, mask: Tensor, masked: Tensor) -> Told:
    """What is told with what a nine-channel network sees: the mask at the latent's size and the masked latent.

    `mask` [1, 1, h, w] of zeros and ones; `masked` [B, C, h, w].
    """
    concat = torch.cat([mask.expand(len(told), -1, -1, -1), masked], dim=1)
    return told.each(lambda each: replace(each, concat=concat))


def nearest_mask(weights: Tensor, cells: tuple[int, int]) -> Tensor:
    """A mask [1, 1, H, W] at the size of the latent, by nearest, zeros and ones: what nine-channel networks learnt."""
    return F.interpolate((weights >= 0.5).float(), size=cells, mode="nearest")


def covering_mask(weights: Tensor, stride: int) -> Tensor:
    """A mask [1, 1, H, W] at the size of the latent: a cell is 1 if any of its pixels is to be repainted at all."""
    return F.max_pool2d((weights > 0).float(), stride)


def mean_mask(weights: Tensor, stride: int) -> Tensor:
    """A mask [1, 1, H, W] at the size of the latent: how white a cell's pixels are on average."""
    return F.avg_pool2d(weights, stride)


@dataclass(frozen=True)
class Reconstruction:
    """A picture, what is left of it after the autoencoder, and how alike they are (PSNR in decibels, SSIM)."""

    original: Image.Image
    picture: Image.Image
    psnr: float
    ssim: float


def reconstruct(model: Model, source: PictureSource) -> Reconstruction:
    """A picture through the autoencoder and back, at its own size, by the mean of the posterior.

    Raises PictureError if the picture cannot be read, RequestError if it is too small or too large for a model.
    """
    original = to_rgb(open_picture(source))
    low, high = SIDE_RANGE
    if min(original.size) < low or max(original.size) > high:
        raise RequestError(
            f"image is {original.width}x{original.height}; a side must be from {low} to {high} pixels", "image"
        )
    canvas = Canvas(*original.size, model.stride)
    posterior = encode_image(model, canvas.pad(to_pixels([original])))
    picture = to_pictures(to_levels(canvas.crop(decode(model, posterior.mean))))[0]
    return Reconstruction(original, picture, psnr(original, picture), ssim(original, picture))
