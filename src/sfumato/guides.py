"""What a request changes in the networks, and what of a model decides what it may ask: tiling, FreeU, size ids."""

from dataclasses import asdict, replace
from typing import Literal

from sfumato.diffusion.guidance import BLUR_CELLS
from sfumato.diffusion.samplers import TAKES_ETA
from sfumato.diffusion.sampling import Sampling
from sfumato.diffusion.spacing import LAID_IN_SIGMA, LAID_IN_TIMESTEPS
from sfumato.model import Model
from sfumato.nn.circular import circular
from sfumato.nn.freeu import with_freeu
from sfumato.nn.watched import self_attentions
from sfumato.request import Request
from sfumato.request.guides import Tiling
from sfumato.request.traits import Sampled, Traits, check_traits, masked
from sfumato.text.encode import AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE, SizeIds


def traits_of(model: Model) -> Traits:
    """What of a model decides what may be asked of it. It needs no weights."""
    return Traits(
        name=model.name,
        title=model.family.title,
        inpainting=model.family.inpainting,
        instructed=model.family.instructed,
        companion=model.companion is not None,
        ids=model.text.rules.sizes,
        clip_skip=model.text.most_clip_skip,
        stride=model.stride,
        whole=whole_stride(model),
        channels=model.latent_channels,
        scale=model.scaling_factor,
        least_blurred=(BLUR_CELLS // 2 + 1) * model.stride,
        context=model.unet.config.cross_attention_dim,
        timesteps=len(model.schedule),
        layers=tuple(self_attentions(model.unet)),
    )


def sampled(sampling: Sampling) -> Sampled:
    """What of a way to sample decides what may be asked."""
    return Sampled(
        sampling.sampler,
        eta=sampling.sampler in TAKES_ETA,
        plus_plus=sampling.plus_plus is not None,
        spacing=sampling.spacing,
        laid=laid_in(sampling.spacing),
        bounded=sampling.bounds in LAID_IN_TIMESTEPS,
        more=int(sampling.discard_penultimate),
    )


def laid_in(spacing: str) -> Literal["timesteps", "sigma", "levels"]:
    """What a spacing lays the steps in."""
    return "timesteps" if spacing in LAID_IN_TIMESTEPS else "sigma" if spacing in LAID_IN_SIGMA else "levels"


def check(model: Model, request: Request, sampling: Sampling) -> None:
    """Raise RequestError for what the model, or the size of a resolved request, does not allow."""
    refiner = None if model.refiner is None or request.refiner is None else traits_of(model.refiner)
    check_traits(request, traits_of(model), sampled(sampling), refiner)


def masking(model: Model, request: Request) -> tuple[Model, Request]:
    """The model that draws what is masked, and the request, which says how where the model has a companion for it.

    Raises RequestError for what the model, or what else is asked for, does not allow.
    """
    named, seen = masked(request, traits_of(model))
    if model.companion is not None and seen.inpainting and not model.family.inpainting:
        return model.companion.inpainter(model), named
    return model, named


def reshaped(model: Model, request: Request) -> Model:
    """The model with the networks that a resolved request wants: it shares all weights with the one it is made from."""
    if request.tiling is not None:
        model = tiled(model, request.tiling)
    if request.freeu is not None:
        unet = with_freeu(model.unet, **asdict(request.freeu))
        model = replace(model, unet=unet)
    if model.refiner is not None:
        model = replace(model, refiner=reshaped(model.refiner, request))
    return model


def size_ids(request: Request) -> tuple[SizeIds, SizeIds]:
    """What SDXL is told about the picture that is wanted, and about what it should not be."""
    original, crop, target = (_turned(getattr(request, name)) for name in ("original_size", "crop", "target_size"))
    wanted = SizeIds(original, crop or (0, 0), target, _or(request.aesthetic_score, AESTHETIC_SCORE))
    return wanted, SizeIds(
        _turned(request.negative_original_size) or original,
        _turned(request.negative_crop) or crop or (0, 0),
        _turned(request.negative_target_size) or target,
        _or(request.negative_aesthetic_score, NEGATIVE_AESTHETIC_SCORE),
    )


def _turned(pair: tuple[int, int] | None) -> tuple[int, int] | None:
    """Rows before columns, as networks count."""
    return pair and (pair[1], pair[0])


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def tiled(model: Model, tiling: Tiling) -> Model:
    """The model with networks that see the opposite edge beyond an edge: its pictures repeat without a seam."""
    x, y = tiling != "y", tiling != "x"
    networks = circular(model.unet, x=x, y=y), circular(model.autoencoder, x=x, y=y)
    controls = {name: circular(network, x=x, y=y) for name, network in model.controls.items()}
    return replace(model, unet=networks[0], autoencoder=networks[1], controls=controls)


def whole_stride(model: Model) -> int:
    """Pixels per cell at the UNet's lowest resolution, in each direction."""
    return model.stride << (model.unet.config.levels - 1)
