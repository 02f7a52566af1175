"""What to draw, with which settings: one frozen value, checked when it is made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from sfumato.errors import RequestError
from sfumato.request.checks import (
    check_choice,
    check_integer,
    check_text,
    checked_interval,
    checked_name,
    checked_names,
    checked_number,
    checked_prompts,
    nearest,
)
from sfumato.request.controls import Control, ImagePrompt, checked_controls, checked_image_prompts
from sfumato.request.guides import (
    Apg,
    DynamicThresholding,
    FreeU,
    Part,
    PerturbedAttention,
    Refiner,
    SelfAttentionGuidance,
    SoftInpainting,
    Tiling,
    checked_corner,
    checked_part,
)
from sfumato.request.parts import Embedding, Lora, checked_embeddings, checked_loras
from sfumato.request.pictures import (
    SEED_LIMIT,
    SIDE_RANGE,
    Hires,
    MaskedContent,
    Masking,
    Outpaint,
    StartResize,
    StrengthRule,
    Variation,
    Windows,
    checked_hires,
    checked_outpaint,
    checked_size,
    checked_variation,
    checked_windows,
)
from sfumato.request.regions import Region, checked_regions

PredictionName = Literal["epsilon", "v", "sample"]
NoiseMode = Literal["keyed", "sequential", "philox"]
Dialect = Literal["a1111", "comfy", "compel", "plain"]

_INTEGERS: dict[str, tuple[int, int]] = {
    "seed": (0, SEED_LIMIT - 1),
    "steps": (1, 1000),  # a schedule has 1000 timesteps
    "width": SIDE_RANGE,
    "height": SIDE_RANGE,
    "count": (1, 10_000),
    "batch": (1, 256),
    "clip_skip": (0, 64),  # whether the model has so many layers is seen when it is loaded
    "padding": (0, 8192),
    "step_seed_delta": (0, SEED_LIMIT - 1),
}
_NUMBERS: dict[str, tuple[float, float]] = {
    "guidance": (0.0, 100.0),
    "image_guidance": (0.0, 100.0),
    "guidance_rescale": (0.0, 1.0),
    "eta": (0.0, 1.0),
    "strength": (0.0, 1.0),
    "mask_blur": (0.0, 256.0),
    "aesthetic_score": (0.0, 10.0),
    "negative_aesthetic_score": (0.0, 10.0),
}
_PARTS: dict[str, type[Part]] = {
    part.FIELD: part
    for part in (FreeU, PerturbedAttention, SelfAttentionGuidance, Apg, DynamicThresholding, Refiner, SoftInpainting)
}
_NAMES = ("model", "vae", "sampler", "spacing", "image", "mask")
_OFF = ("mask_invert", "masked_only", "allow_unmatched", "differential")  # which JSON leaves out unless they are on


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to draw. Refuses wrong values with a RequestError that names the field, the value and the range.

    prompt          one text or several; several make `count` pictures each, and picture i of all uses seed + i
    image, mask     paths, white in the mask = repaint; None or `sha256:...` of the upright pixels when the pictures are
                    handed over beside the request, which is also what a picture's metadata has here
    width, height   pixels; mask_blur too
    resize_mode     how a start picture takes another size: cropped to fill it (the default), stretched, filled up, or
                    by stretching its latent
    mask_invert     black in the mask = repaint
    masked_only     works on what is around the mask alone, with `padding` pixels, at width x height; the picture keeps
                    its own size
    masking         "network": the UNet sees the mask, as that of an inpainting model, or of one with a companion;
                    "blend": what is black is put back at every step; by default the network where there is one
    masked_content  what is under the mask before noise is added: original (the default), fill, noise, nothing
    windows         a large picture is drawn in overlapping parts; true, a size, or (size, overlap), stand for `Windows`
    outpaint        new parts at the picture's sides, drawn; its fields stand for an `Outpaint`
    variation       a share of another seed's start noise; a strength, or (strength, seed), stands for a `Variation`
    step_seed_delta   is added to the seed for the noise of stochastic samplers' steps: A1111's ENSD
    hires           a second pass over the picture, enlarged; a scale, or its fields, stand for a `Hires`
    seed_size       (width, height): the start noise is that of this size, in the middle
    strength        the share of the steps that is run on a start picture: 1 ignores it, 0 returns it
    strength_rule   what a share of n steps is: "share" (or None) int(n * strength) of n, as diffusers; "a1111" one more
                    of n, as stable-diffusion-webui; "whole" n of int(n / strength), as ComfyUI
    image_guidance  how strongly the start picture counts in models that follow instructions (InstructPix2Pix)
    prediction      "epsilon", "v" or "sample": what the model predicts, where its files do not say it
    guidance_interval   (first, last): guidance is 1 outside of these parts of the noise schedule, from 0 to 1
    eta             the share of fresh noise in stochastic samplers
    clip_skip       how many of the text encoder's last layers are left out: 1 is what A1111 calls 2
    batch           how many pictures go through the network together
    strict          one by one, so that a picture has the same bytes alone and in company
    loras           what is merged into the model; a name, or (name, weight[, text_weight]), stands for a `Lora`
    allow_unmatched leaves out what LoRAs have for layers that the model has not, where it is an error otherwise
    regions         prompts for parts of the picture
    styles          names of styles that are put around the prompts
    dialect         how weights and other marks in the prompts are read
    embeddings      files of new words that prompts may use; a name, or (name, word), stands for an `Embedding`
    controls        pictures that control networks see, each a `Control` or its fields as a mapping
    image_prompts   pictures in place of words, each an `ImagePrompt` or its fields as a mapping
    tiling          the directions, x, y or both, in which the picture can be repeated without a seam
    freeu           the UNet's own features count more, what skips to them less: see `FreeU`; None is off, as below
    perturbed_attention   away from an answer without self-attention: see `PerturbedAttention`
    self_attention_guidance   away from an answer to a blurred latent: see `SelfAttentionGuidance`
    apg             what guidance adds along the answer itself counts less: see `Apg`
    dynamic_thresholding   guidance at a high scale without burnt colours: see `DynamicThresholding`
    refiner         a model that draws the last part of the timesteps: see `Refiner`, for which its name stands
    differential    grey in the mask is a strength of its own, not a share of a mixture
    soft_inpainting   grey in the mask is kept at high noise and drawn at low noise: see `SoftInpainting`
    original_size, crop, target_size   (width, height) and (left, top): what SDXL is told of the training picture that
                    the wanted one should be like; by default its own size, and no crop
    negative_original_size, negative_crop, negative_target_size   the same of what it should not be; by default as above
    aesthetic_score, negative_aesthetic_score   what the refiner is told in place of a target size; 6 and 2.5
    """

    prompt: str | Sequence[str] = ""
    negative_prompt: str = ""
    model: str | None = None
    vae: str | None = None
    prediction: PredictionName | None = None
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    image_guidance: float | None = None
    guidance_rescale: float | None = None
    guidance_interval: tuple[float, float] | None = None
    eta: float | None = None
    sampler: str | None = None
    spacing: str | None = None
    width: int | None = None
    height: int | None = None
    count: int = 1
    batch: int | None = None
    clip_skip: int | None = None
    image: str | None = None
    strength: float | None = None
    strength_rule: StrengthRule | None = None
    mask: str | None = None
    mask_blur: float | None = None
    resize_mode: StartResize | None = None
    mask_invert: bool = False
    masked_only: bool = False
    padding: int | None = None
    masking: Masking | None = None
    masked_content: MaskedContent | None = None
    windows: Windows | None = None
    outpaint: Outpaint | None = None
    hires: Hires | None = None
    variation: Variation | None = None
    seed_size: tuple[int, int] | None = None
    step_seed_delta: int | None = None
    noise: NoiseMode = "keyed"
    dialect: Dialect = "a1111"
    strict: bool = False
    regions: Sequence[Region] = ()
    styles: Sequence[str] = ()
    loras: Sequence[Lora] = ()
    allow_unmatched: bool = False
    embeddings: Sequence[Embedding] = ()
    controls: Sequence[Control] = ()
    image_prompts: Sequence[ImagePrompt] = ()
    tiling: Tiling | None = None
    freeu: FreeU | None = None
    perturbed_attention: PerturbedAttention | None = None
    self_attention_guidance: SelfAttentionGuidance | None = None
    apg: Apg | None = None
    dynamic_thresholding: DynamicThresholding | None = None
    soft_inpainting: SoftInpainting | None = None
    differential: bool = False
    refiner: Refiner | None = None
    original_size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    target_size: tuple[int, int] | None = None
    negative_original_size: tuple[int, int] | None = None
    negative_crop: tuple[int, int] | None = None
    negative_target_size: tuple[int, int] | None = None
    aesthetic_score: float | None = None
    negative_aesthetic_score: float | None = None

    def __post_init__(self) -> None:
        _set(self, "prompt", checked_prompts(self.prompt))
        check_text("negative_prompt", self.negative_prompt)
        for name, (low, high) in _INTEGERS.items():
            check_integer(name, getattr(self, name), low, high, optional=name != "count")
        for name, (least, most) in _NUMBERS.items():
            _set(self, name, checked_number(name, getattr(self, name), least, most))
        for name in _NAMES:
            _set(self, name, checked_name(name, getattr(self, name)))
        _set(self, "guidance_interval", checked_interval(self.guidance_interval))
        _set(self, "regions", checked_regions(self.regions))
        _set(self, "styles", checked_names("styles", self.styles))
        _set(self, "loras", checked_loras(self.loras))
        _set(self, "embeddings", checked_embeddings(self.embeddings))
        _set(self, "controls", checked_controls(self.controls))
        _set(self, "image_prompts", checked_image_prompts(self.image_prompts))
        check_choice("tiling", self.tiling, Tiling)
        for name in ("original_size", "target_size", "negative_original_size", "negative_target_size"):
            _set(self, name, checked_size(name, getattr(self, name)))
        for name in ("crop", "negative_crop"):
            _set(self, name, checked_corner(name, getattr(self, name)))
        for name, part in _PARTS.items():
            _set(self, name, checked_part(part, getattr(self, name)))
        check_choice("prediction", self.prediction, PredictionName)
        check_choice("noise", self.noise, NoiseMode, optional=False)
        checked_dialect(self.dialect)
        check_choice("strength_rule", self.strength_rule, StrengthRule)
        check_choice("resize_mode", self.resize_mode, StartResize)
        check_choice("masking", self.masking, Masking)
        check_choice("masked_content", self.masked_content, MaskedContent)
        _set(self, "windows", checked_windows(self.windows))
        _set(self, "outpaint", checked_outpaint(self.outpaint))
        _set(self, "hires", checked_hires(self.hires))
        _set(self, "variation", checked_variation(self.variation))
        _set(self, "seed_size", checked_size("seed_size", self.seed_size))
        for name in ("strict", *_OFF):
            if not isinstance(getattr(self, name), bool):
                raise RequestError(f"{name} is {getattr(self, name)!r}; it must be true or false", name)
        self._check_together()

    def _check_together(self) -> None:
        if self.differential and self.soft_inpainting is not None:
            raise RequestError(
                "differential is given with soft_inpainting, which both say what grey is; leave out one of them",
                "differential",
            )
        if self.apg is not None and self.dynamic_thresholding is not None:
            raise RequestError(
                "apg is given with dynamic_thresholding, which both say what guidance adds; leave out one of them",
                "apg",
            )
        if self.strict and self.batch not in (None, 1):
            raise RequestError(
                f"batch is {self.batch} with strict, which makes pictures one by one; leave out one of them", "batch"
            )
        if self.total > 10_000:
            raise RequestError(
                f"count is {self.count} for each of {len(self.prompts)} prompts, {self.total} pictures in all; "
                "a request makes at most 10000",
                "count",
            )
        if self.seed is not None and self.seed + self.total > SEED_LIMIT:
            raise RequestError(
                f"seed is {self.seed} for {self.total} pictures; the last picture's seed must be below 2^64", "seed"
            )

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, one or several."""
        return (self.prompt,) if isinstance(self.prompt, str) else tuple(self.prompt)

    def seed_of(self, index: int) -> int:
        """The seed of picture `index` of a resolved request: the next one each time, or one for all variations."""
        if self.seed is None:
            raise ValueError("a request that is run has a seed")
        return self.seed if self.variation is not None and self.variation.strength > 0 else self.seed + index

    @property
    def total(self) -> int:
        """How many pictures the request makes."""
        return self.count * len(self.prompts)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; what is at its default None or off is left out, empty lists of parts too."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["regions"] = [region.to_dict() for region in self.regions] or None
        values["styles"] = list(self.styles) or None
        values["loras"] = [lora.to_dict() for lora in self.loras] or None
        values["embeddings"] = [embedding.to_dict() for embedding in self.embeddings] or None
        values["controls"] = [control.to_dict() for control in self.controls] or None
        values["image_prompts"] = [prompt.to_dict() for prompt in self.image_prompts] or None
        values["windows"] = self.windows and self.windows.to_dict()
        values["outpaint"] = self.outpaint and self.outpaint.to_dict()
        values["hires"] = self.hires and self.hires.to_dict()
        values["variation"] = self.variation and self.variation.to_dict()
        values |= {name: value.to_dict() for name, value in values.items() if isinstance(value, Part)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None and (value is not False or name not in _OFF)
        }

    def to_json(self) -> str:
        """The request as one JSON object."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Request":
        """The request of JSON values. An unknown field is a RequestError that names the nearest one."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise RequestError(f"there is no field {name!r}; {nearest(str(name), known)}", str(name))
        given = dict(values)
        if isinstance(given.get("prompt"), list):
            given["prompt"] = tuple(given["prompt"])
        if isinstance(given.get("guidance_interval"), list):
            given["guidance_interval"] = tuple(given["guidance_interval"])
        for name in (
            "prompt",
            "negative_prompt",
            "count",
            "noise",
            "dialect",
            "strict",
            "loras",
            "embeddings",
            "controls",
            "image_prompts",
            "regions",
            "styles",
            *_OFF,
        ):
            if name in given and given[name] is None:
                raise RequestError(f"{name} is null; leave it out for the default", name)
        return cls(**given)

    @classmethod
    def from_json(cls, text: str) -> "Request":
        """The request in a JSON text. Raises RequestError if it is not a JSON object of known fields."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"the request is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise RequestError(f"the request is a JSON {type(values).__name__}; it must be an object of fields")
        return cls.from_dict(values)


def checked_dialect(value: object) -> Dialect:
    """A dialect of prompts. Raises RequestError for anything else."""
    check_choice("dialect", value, Dialect, optional=False)
    return value  # type: ignore[return-value]


def ranges() -> dict[str, tuple[float, float]]:
    """The least and the most that each field of numbers may be, for faces that show it before it is wrong."""
    return {**_INTEGERS, **_NUMBERS}


def _set(request: Request, name: str, value: object) -> None:
    object.__setattr__(request, name, value)  # the way in for a frozen dataclass that normalises its own fields
