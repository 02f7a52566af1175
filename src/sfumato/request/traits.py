"""What of a model decides what may be asked of it, as numbers and names; and what a request may not ask, therefore.

A model's headers and configurations show all of it, so that a request that cannot work is refused before a weight is
read, and by a server that reads none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from sfumato.errors import RequestError
from sfumato.request.guides import Tiling
from sfumato.request.pictures import Masking
from sfumato.request.request import Request
from sfumato.request.together import GREY

BLENDED = (*GREY, "windows", "refiner")
"""The fields for which what is masked is blended: a network that sees the mask cannot do it, or not alone."""

IDS = {
    **dict.fromkeys(("original_size", "crop", "negative_original_size", "negative_crop"), frozenset({5, 6})),
    **dict.fromkeys(("target_size", "negative_target_size"), frozenset({6})),
    **dict.fromkeys(("aesthetic_score", "negative_aesthetic_score"), frozenset({5})),
}
"""The fields about size ids, and how many ids the models have that read them."""

FOR_WORDS = ("apg", "dynamic_thresholding", "perturbed_attention", "self_attention_guidance")
"""The fields about guidance that know one guidance, by words."""

LARGEST_APART = 1e-6  # of scaling factors that are the same in two files


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What of a model decides what may be asked of it.

    name, title      its own and its family's
    inpainting, instructed   whether its UNet sees a masked picture, or a picture, beside the latent
    companion        whether it has what makes its UNet see a mask
    ids              how many size ids it is told: 0, 6, or 5 with an aesthetic score
    clip_skip        the most layers that a request can leave out
    stride, whole    pixels per latent cell, and per cell at the UNet's lowest resolution, in each direction
    channels, scale  of its latents
    least_blurred    pixels of a side that self-attention guidance's blur needs
    context          features of text that its UNet attends to
    timesteps        how many noise levels it was trained on
    layers           the names of the UNet's blocks with self-attention
    """

    name: str
    title: str
    inpainting: bool
    instructed: bool
    companion: bool
    ids: int
    clip_skip: int
    stride: int
    whole: int
    channels: int
    scale: float
    least_blurred: int
    context: int
    timesteps: int
    layers: tuple[str, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Traits":
        """The traits of JSON values, which `dataclasses.asdict` makes."""
        return cls(**{**values, "layers": tuple(values["layers"])})


@dataclass(frozen=True)
class Sampled:
    """What of a way to sample decides what may be asked.

    sampler, eta, plus_plus   its sampler, whether that takes eta, and whether it is CFG++
    spacing, laid             its spacing, and what that lays the steps in
    bounded                   whether one that lays them in sigma lies between two that are laid in timesteps
    more                      how many steps it lays beyond those that it runs
    """

    sampler: str
    eta: bool
    plus_plus: bool
    spacing: str
    laid: Literal["timesteps", "sigma", "levels"]
    bounded: bool = False
    more: int = 0

    @property
    def by_timesteps(self) -> bool:
        """Does it need a training timestep for each step?"""
        return self.laid == "timesteps" or (self.laid == "sigma" and self.bounded)


def check_traits(request: Request, traits: Traits, sampled: Sampled, refiner: Traits | None = None) -> None:
    """Raise RequestError for what a resolved request asks of a model, or of its refiner, that cannot be done."""
    _check_sampled(request, sampled)
    _check_steps(request, traits, sampled)
    _check_instructed(request, traits, sampled)
    if request.refiner is not None:
        _check_refiner(traits, refiner, request.refiner.model)
    second = refiner if request.refiner is not None else None
    _check_ids(request, traits, second)
    _check_seen(request, traits)
    for each in (traits, second):
        if each is not None:
            _check_networks(request, each)


def masking_of(request: Request, traits: Traits) -> Masking | None:
    """How a model draws what is masked, where that can be chosen: as the request says, or else what suits both.

    Raises RequestError for what the model, or what else is asked for, does not allow.
    """
    if traits.inpainting:
        if request.masking == "blend":
            raise RequestError(
                f"masking is 'blend', but {traits.name} is an inpainting model, which sees it", "masking"
            )
        return request.masking
    blended = next((field for field in BLENDED if getattr(request, field)), None)
    if request.masking == "network":
        if not traits.companion:
            raise RequestError(
                f"masking is 'network', but {traits.name} has none that sees a mask; leave it out, or use an "
                "inpainting model",
                "masking",
            )
        if blended is not None:
            raise RequestError(
                f"masking is 'network' with {blended}, which is done by blending; leave out one of them", "masking"
            )
    if not traits.companion:
        return request.masking
    return "blend" if request.masking == "blend" or blended is not None else "network"


def masked(request: Request, traits: Traits) -> tuple[Request, Traits]:
    """The request that says how what is masked is drawn, and the traits of the model that draws it.

    Raises RequestError as `masking_of`.
    """
    chosen = masking_of(request, traits)
    by_companion = chosen == "network" and not traits.inpainting
    return replace(request, masking=chosen), replace(traits, inpainting=True) if by_companion else traits


def check_clip_skip(clip_skip: int, traits: Traits) -> None:
    """Raise RequestError for more layers than a text encoder can leave out."""
    if not 0 <= clip_skip <= traits.clip_skip:
        raise RequestError(
            f"clip_skip is {clip_skip}; the text encoder of {traits.name} can leave out 0 to {traits.clip_skip} layers",
            "clip_skip",
        )


def _check_sampled(request: Request, sampled: Sampled) -> None:
    if request.eta is not None and not sampled.eta:
        raise RequestError(
            f"eta is {request.eta} but the sampler {sampled.sampler} has no fresh noise to scale; leave it out, or use "
            "one that has, such as ddim or euler_a",
            "eta",
        )


def _check_steps(request: Request, traits: Traits, sampled: Sampled) -> None:
    """Raise RequestError for more steps than the spacing can lay in the timesteps that a model was trained on."""
    assert request.steps is not None
    laid = request.steps
    if request.strength_rule == "whole" and request.strength:  # see `diffusion.spacing.strength_steps`
        laid = int(request.steps / request.strength)
    if sampled.by_timesteps and laid + sampled.more > traits.timesteps:
        whole = "" if laid == request.steps else f", of {laid} in all at strength {request.strength}"
        raise RequestError(
            f"steps is {request.steps}{whole}; the spacing {sampled.spacing} has at most one step for each of the "
            f"{traits.timesteps} training timesteps of {traits.name}",
            "steps",
        )


def _check_instructed(request: Request, traits: Traits, sampled: Sampled) -> None:
    """Raise RequestError for a model that edits a picture without one, or a picture's guidance without such a model."""
    if traits.instructed and request.image is None:
        raise RequestError(f"{traits.name} edits pictures by instructions; give it a start image (img2img)", "image")
    if request.image_guidance is not None and not traits.instructed:
        raise RequestError(
            f"image_guidance is {request.image_guidance}, and {traits.name} does not see the start picture; models "
            "that follow instructions (InstructPix2Pix) do",
            "image_guidance",
        )
    if not traits.instructed:
        return
    for field in FOR_WORDS:
        if getattr(request, field) is not None:
            raise RequestError(f"{field} is for guidance by words alone; {traits.name} has two, so leave it out", field)
    if sampled.plus_plus:
        raise RequestError(f"{traits.name} has two guidances, and CFG++ samplers know one; choose another", "sampler")


def _check_refiner(traits: Traits, refiner: Traits | None, name: str) -> None:
    """Raise RequestError for a refiner that is not there, or whose latents are not those of the model."""
    if refiner is None:
        raise RequestError(
            f"refiner is {name} but the model has none; give the request to an Engine, or "
            "dataclasses.replace(model, refiner=sfumato.load(...))",
            "refiner",
        )
    apart = abs(traits.scale - refiner.scale) > LARGEST_APART
    if apart or (traits.channels, traits.stride) != (refiner.channels, refiner.stride):
        raise RequestError(
            f"refiner is {refiner.name} ({refiner.title}), whose latents are not those of {traits.name} "
            f"({traits.title}); it must be a model with the same autoencoder",
            "refiner",
        )
    if traits.inpainting != refiner.inpainting:
        raise RequestError(
            f"refiner is {refiner.name}; of it and {traits.name} one is an inpainting model, and both must be or none",
            "refiner",
        )


def _check_ids(request: Request, traits: Traits, refiner: Traits | None) -> None:
    """Raise RequestError for size ids and scores that neither the model nor its refiner reads."""
    known = {traits.ids} | ({refiner.ids} if refiner is not None else set())
    for field, counts in IDS.items():
        if getattr(request, field) is not None and not known & counts:
            kind = "SDXL" if 6 in counts else "SDXL's refiner"
            raise RequestError(
                f"{field} is {getattr(request, field)}, but {traits.name} is not told of it; only {kind} is", field
            )


def _check_seen(request: Request, traits: Traits) -> None:
    """Raise RequestError for what a UNet that sees a picture beside the latent cannot do."""
    for field in GREY:
        if getattr(request, field) and traits.inpainting:
            raise RequestError(
                f"{field} is given, but {traits.name} is an inpainting model, which sees the mask in black and white; "
                "use it with another model",
                field,
            )
    kind = "a nine-channel" if traits.inpainting else "an InstructPix2Pix" if traits.instructed else None
    if request.windows is not None and kind is not None:
        raise RequestError(
            f"windows cannot be used with {kind} model, which sees the whole start picture; leave out one of them",
            "windows",
        )


def _check_networks(request: Request, traits: Traits) -> None:
    assert request.width is not None and request.height is not None
    check_clip_skip(request.clip_skip or 0, traits)
    _check_tiling(traits, request.tiling, request.width, request.height)
    if request.perturbed_attention is not None:
        request.perturbed_attention.among(traits.layers)
    if request.self_attention_guidance is not None and not any(each.startswith("mid_block") for each in traits.layers):
        raise RequestError(
            f"self_attention_guidance needs self-attention at the lowest resolution, where {traits.name} has none; "
            "leave it out, or use perturbed_attention with other layers",
            "self_attention_guidance",
        )
    least = traits.least_blurred
    if request.self_attention_guidance is not None and min(request.width, request.height) < least:
        raise RequestError(
            f"self_attention_guidance needs pictures of at least {least}x{least}, not {request.width}x"
            f"{request.height}: its blur is {least // traits.stride * 2 - 1} latent cells wide",
            "self_attention_guidance",
        )


def _check_tiling(traits: Traits, tiling: Tiling | None, width: int, height: int) -> None:
    """Raise RequestError for a size at which a picture that tiles would have a seam, or an uneven one."""
    whole = traits.whole
    for field, side, directions in (("width", width, ("x", "both")), ("height", height, ("y", "both"))):
        if tiling in directions and side % whole:
            lower = max(side // whole * whole, whole)
            raise RequestError(
                f"{field} is {side} and tiling {tiling}; this model tiles at multiples of {whole}, such as "
                f"{lower} or {lower + whole}",
                field,
            )
