"""A request made ready for a model: every field concrete, its pictures read, fitted and encoded."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sfumato import guides
from sfumato import operations as op
from sfumato.controls.reading import (
    NO_CONTROLS,
    ReadControls,
    check_controls_there,
    network_names,
    promptings,
    read_controls,
    steerings,
)
from sfumato.controls.steering import Prompting, Steering
from sfumato.diffusion.presets import PRESETS, with_eta, with_overrides
from sfumato.diffusion.sampling import Sampling
from sfumato.diffusion.spacing import strength_steps, tail
from sfumato.errors import RequestError
from sfumato.hires import second_pass
from sfumato.images import (
    NO_PICTURES,
    RESIZES,
    Pictures,
    PictureSource,
    feather,
    mask_weights,
    named_picture,
    open_picture,
    pad_to_multiple,
    to_mask,
    to_pixels,
    to_rgb,
)
from sfumato.masks import Inset, filled_from_around, inset, inverted
from sfumato.metadata import pixels_digest
from sfumato.model import Model
from sfumato.nn.autoencoder import Posterior
from sfumato.outpainting import extended
from sfumato.places import places
from sfumato.request import Defaults, Lora, Region, Request, draw_seed, fill
from sfumato.request.said import Said
from sfumato.request.together import check_together
from sfumato.text.words import AS_WRITTEN, alike_loras
from sfumato.wording import filled_in


@dataclass(frozen=True)
class Job:
    """A request that is ready to run on a model: every field concrete, pictures read and fitted.

    `picture` (RGB) and `mask` (grey, before the blur) have the size of the request, and `unscaled` its own where the
    picture's latent is scaled in its place; `sampling` is what runs;
    `inputs` are the digests of the upright pictures as they were given; `inset` is, where what is masked is worked on
    alone, the whole picture that they are a part of; `stage` names a pass after the first, whose noise is its own, and
    `before` is how many steps the first had.
    What is computed from the pictures is computed once, when it is first needed.
    """

    model: Model
    request: Request
    sampling: Sampling
    canvas: op.Canvas
    picture: Image.Image | None
    mask: Image.Image | None
    inputs: dict[str, str]
    inset: Inset | None = None
    only: range | None = None
    said: Mapping[int, Said] = dataclasses.field(default_factory=dict)
    region_masks: tuple[Image.Image | None, ...] = ()
    stage: str = ""
    before: int | None = None
    read: ReadControls = NO_CONTROLS
    unscaled: Image.Image | None = None

    @property
    def levels(self) -> list[float]:
        """The noise levels of the run: of a start picture, the last ones, as its strength says."""
        strength = 1.0 if self.request.strength is None else self.request.strength
        assert self.request.steps is not None
        lay = partial(self.sampling.sigmas, self.model.schedule)
        return tail(lay, self.request.steps, strength, self.request.strength_rule or "share")

    @cached_property
    def steerings(self) -> tuple[Steering | Prompting, ...]:
        """The controls and image prompts with their networks and what these see at this size."""
        size = (self.canvas.width, self.canvas.height)
        controls = steerings(self.model, self.read, size, start=self.picture, mask=self.mask)
        return (*controls, *promptings(self.model, self.read, size))

    @cached_property
    def second(self) -> "Job | None":
        """The pass over the enlarged pictures of this one."""
        return None if self.request.hires is None else second_pass(self, self.request.hires)

    @property
    def pictures(self) -> range:
        """The numbers of the pictures that are made."""
        return range(self.request.total) if self.only is None else self.only

    @property
    def original(self) -> Image.Image:
        """The start picture in the size of the pictures that are made of it."""
        found = self.picture if self.inset is None else self.inset.picture
        assert found is not None
        return found

    @property
    def nothing_to_do(self) -> bool:
        """Is the start picture already the answer: a strength of no whole step, or a mask that is all black?"""
        if self.picture is None:
            return False
        strength, steps, rule = self.request.strength, self.request.steps, self.request.strength_rule or "share"
        no_step = strength is not None and steps is not None and strength_steps(steps, strength, rule)[1] == 0
        return no_step or (self.mask is not None and self.mask.getextrema()[1] == 0)

    @cached_property
    def places(self) -> tuple[Tensor, ...]:
        """How much the request's own prompt counts where, then those of its regions; none without regions."""
        return places(self.request.regions, self.region_masks, self.canvas) if self.request.regions else ()

    @cached_property
    def weights(self) -> Tensor:
        """The mask at the size that is worked at, [1, 1, H, W]; all ones without a mask."""
        weights = torch.ones(1, 1, *self.canvas.shape) if self.mask is None else mask_weights(self.mask)
        return self.canvas.pad(weights).to(self.model.device)

    @cached_property
    def shares(self) -> Tensor:
        """How white each latent cell is in the mask with its soft edge, [1, 1, h, w]."""
        assert self.mask is not None
        weights = self.canvas.pad(mask_weights(feather(self.mask, self.request.mask_blur or 0.0)))
        return op.mean_mask(weights, self.model.stride).to(self.model.device)

    @cached_property
    def posterior(self) -> Posterior:
        """That of the start picture."""
        assert self.picture is not None
        if self.unscaled is None:
            return op.encode_image(self.model, self.canvas.pad(to_pixels([self.picture])))
        own = op.encode_image(self.model, pad_to_multiple(to_pixels([self.unscaled]), self.model.stride)).mean
        scaled = F.interpolate(own, size=self.canvas.cells, mode="bilinear")  # as A1111's resize mode 3 does
        return Posterior(scaled, torch.zeros_like(scaled))

    @cached_property
    def filled_posterior(self) -> Posterior:
        """That of the start picture with the colours around where it is repainted."""
        assert self.picture is not None
        pixels = self.canvas.pad(to_pixels([self.picture])).to(self.model.device)
        return op.encode_image(self.model, filled_from_around(pixels, (self.weights > 0).float()))

    @cached_property
    def masked_posterior(self) -> Posterior:
        """That of the start picture with grey where it is repainted: what a nine-channel network sees."""
        picture = torch.zeros(1, 3, *self.canvas.shape) if self.picture is None else to_pixels([self.picture])
        pixels = self.canvas.pad(picture).to(self.model.device)
        return op.encode_image(self.model, pixels * (self.weights < 0.5))


def prepare(
    model: Model,
    request: Request,
    *,
    image: PictureSource | None = None,
    mask: PictureSource | None = None,
    pictures: Pictures = NO_PICTURES,
    only: range | None = None,
    said: Mapping[int, Said] | None = None,
) -> Job:
    """Reads and fits the pictures and makes every field of the request concrete. Errors are those of `generate`.

    `only` are the numbers of the pictures that will be made, by default all; `said` their prompts as they were filled
    in, by default now.
    """
    request = request if request.seed is not None else replace(request, seed=draw_seed())
    said = filled_in(request) if said is None else said
    check_controls_there(request, model)
    given = _read(request, image, mask, pictures)
    named = given.request
    if given.mask is not None or request.outpaint is not None:
        model, named = guides.masking(model, named)
    resolved, sampling = resolve(model, named, given.picture.size if given.picture else None, only, said)
    assert resolved.width is not None and resolved.height is not None
    fitted, part = _fitted(given, resolved, (resolved.width, resolved.height))
    job = Job(
        guides.reshaped(model.with_only(network_names(request)), resolved),
        resolved,
        sampling,
        op.Canvas(resolved.width, resolved.height, model.stride),
        fitted.picture,
        fitted.mask,
        {**given.inputs, **fitted.read.inputs},
        part,
        only,
        said,
        given.region_masks,
        read=fitted.read,
        unscaled=fitted.unscaled,
    )
    for each in (job, job.second):  # what cannot be run is told before anything is
        assert each is None or (
            each.levels and len(each.steerings) == len(request.controls) + len(request.image_prompts)
        )
    return job


@dataclass(frozen=True)
class _Given:
    """The pictures of a request, and the request with their digests in place of paths. `unscaled` is as in `Job`."""

    request: Request
    picture: Image.Image | None
    mask: Image.Image | None
    read: ReadControls
    region_masks: tuple[Image.Image | None, ...]
    inputs: Mapping[str, str]
    unscaled: Image.Image | None = None


def _read(request: Request, image: PictureSource | None, mask: PictureSource | None, pictures: Pictures) -> _Given:
    """All pictures of a request, handed over or named by it."""
    picture, grey = _read_start(request, image, mask, pictures)
    inputs = {  # of the mask as it was given: replay looks for it
        name: f"sha256:{pixels_digest(each)}" for name, each in (("image", picture), ("mask", grey)) if each is not None
    }
    read = read_controls(request, pictures)
    regions, masks = _read_regions(request, pictures)
    named = replace(
        request,
        image=inputs.get("image"),
        mask=inputs.get("mask"),
        controls=read.controls,
        image_prompts=read.prompts,
        regions=regions,
    )
    inputs |= {
        f"region {number + 1} mask": str(each.mask) for number, each in enumerate(regions) if each.mask is not None
    }
    return _Given(named, picture, grey, read, masks, inputs)


def _fitted(given: _Given, resolved: Request, size: tuple[int, int]) -> tuple[_Given, Inset | None]:
    """The start picture and the mask in the size of the request, and of what is worked on alone the whole picture."""
    picture, grey, read = given.picture, given.mask, given.read
    if grey is not None and resolved.mask_invert:
        grey = inverted(grey)
    if picture is not None and resolved.outpaint is not None:
        picture, grey = extended(picture, resolved.outpaint)
    part = None
    if picture is not None and grey is not None and resolved.masked_only:
        assert resolved.padding is not None
        part = inset(picture, grey, resolved.padding, size)
        read = read.within(picture.size, part.box)
        picture, grey = part.cut(size)
    latent = resolved.resize_mode == "latent"
    fit = RESIZES["stretch" if latent else resolved.resize_mode or "crop"]
    return replace(
        given,
        picture=fit(picture, *size) if picture else None,
        mask=fit(grey, *size) if grey else None,
        read=read,
        unscaled=picture if latent and picture is not None and picture.size != size else None,
    ), part


def _read_start(
    request: Request, image: PictureSource | None, mask: PictureSource | None, pictures: Pictures
) -> tuple[Image.Image | None, Image.Image | None]:
    """The start picture and the mask, handed over or named by the request, of one size; None for what is not given."""
    if image is None and request.image is not None:
        image = named_picture(request.image, "image", pictures)
    if mask is None and request.mask is not None:
        mask = named_picture(request.mask, "mask", pictures)
    check_together(request, image=image is not None, mask=mask is not None)
    picture = None if image is None else to_rgb(open_picture(image))
    grey = None if mask is None else to_mask(open_picture(mask))
    if picture is not None and grey is not None and grey.size != picture.size:
        raise RequestError(
            f"mask is {grey.width}x{grey.height} and the image {picture.width}x{picture.height}; they must be of one "
            "size",
            "mask",
        )
    return picture, grey


def _read_regions(request: Request, pictures: Pictures) -> tuple[tuple[Region, ...], tuple[Image.Image | None, ...]]:
    """The regions with the digests of their masks, and the masks; None for those with an area."""
    masks = tuple(
        None if each.mask is None else to_mask(open_picture(named_picture(each.mask, "regions", pictures)))
        for each in request.regions
    )
    regions = tuple(
        each if mask is None else replace(each, mask=f"sha256:{pixels_digest(mask)}")
        for each, mask in zip(request.regions, masks, strict=True)
    )
    return regions, masks


def resolve(
    model: Model,
    request: Request,
    picture_size: tuple[int, int] | None = None,
    only: range | None = None,
    said: Mapping[int, Said] = AS_WRITTEN,
) -> tuple[Request, Sampling]:
    """The request with every None replaced by what suits the model, and the sampling that it names.

    `picture_size` is the start picture's: the size of a request that names none. `sampler` and `spacing` stay None
    where the model's own sampling has no name. `only` are the numbers of the pictures that will be made, `said`
    their prompts as they were filled in. Raises RequestError for what the model cannot do.
    """
    sampling = with_overrides(model.sampling, sampler=request.sampler, spacing=request.spacing)
    filled = fill(request, defaults_of(model), picture_size)
    named = _named(filled, only, said)
    loras = model.loras[: len(model.loras) - len(named)]
    _check_there("loras", [*(request.loras or loras), *named], model.loras)
    _check_there("embeddings", request.embeddings, model.embeddings[: len(request.embeddings)])
    resolved = replace(filled, loras=loras, embeddings=model.embeddings)
    guides.check(model, resolved, sampling)
    return resolved, sampling if request.eta is None else with_eta(sampling, request.eta)


def _named(request: Request, only: range | None, said: Mapping[int, Said]) -> tuple[Lora, ...]:
    """The LoRAs that the prompts of the pictures name; the same in all of them, since the model has them or has not."""
    pictures = range(request.total) if only is None else only
    runs = alike_loras(request, said)
    found = {loras: None for run, loras in runs if run.start < pictures.stop and pictures.start < run.stop}
    if len(found) > 1:
        raise RequestError(
            "the prompts name different LoRAs, which no one model has; give the request to an Engine, or one prompt at "
            "a time",
            "prompt",
        )
    return next(iter(found))


def defaults_of(model: Model) -> Defaults:
    """What the model draws with where a request does not say."""
    family = model.family
    return Defaults(
        name=model.name,
        size=family.size,
        steps=family.steps,
        guidance=family.guidance,
        sampler=preset_name(model.sampling),
        instructed=family.instructed,
    )


def _check_there(field: str, asked: Sequence[object], there: Sequence[object]) -> None:
    """Raise RequestError if the model has not what a request asks to be made part of it."""
    if asked and tuple(asked) != tuple(there):
        wanted, found = (", ".join(map(str, each)) or "none" for each in (asked, there))
        raise RequestError(
            f"{field} is {wanted} but the model has {found}; load the model with them, or give the request to an "
            "Engine",
            field,
        )


def preset_name(sampling: Sampling) -> str | None:
    """The name of a model's own sampling, where it has one."""
    plain = replace(sampling, prediction=None)
    return next((name for name, each in PRESETS.items() if each == plain), None)
