"""The parts of a request that change how a picture is guided or how the networks run; each is off when it is None."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar

from sfumato.errors import RequestError
from sfumato.request.checks import check_integer, checked_name, checked_number

Tiling = Literal["x", "y", "both"]
Ranges = Mapping[str, tuple[float, float]]
CROP_LIMIT = 8192  # pixels


@dataclass(frozen=True)
class Part:
    """A group of numbers that belong together. Raises RequestError that names the field, the value and the range.

    A part may be told as itself, as a mapping of its fields, as the value of its first field, or as true: its defaults.
    """

    FIELD: ClassVar[str]
    RANGES: ClassVar[Ranges] = {}

    def __post_init__(self) -> None:
        for name, (low, high) in self.RANGES.items():
            where = f"{self.FIELD}.{name}"
            checked = checked_number(where, getattr(self, name), low, high)
            if checked is None:
                raise RequestError(f"{where} is None; it must be a number from {low:g} to {high:g}", where)
            object.__setattr__(self, name, checked)

    def to_dict(self) -> dict[str, Any]:
        """The part as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class FreeU(Part):
    """How much the two lowest levels of the way up count: their own features (b1, b2) and what skips to them (s1, s2).

    1 everywhere changes nothing. The defaults are the authors' for SD 1.4 and SDXL; 1.5, 1.6, 0.9, 0.2 those for
    SD 1.5, 1.4, 1.6, 0.9, 0.2 for SD 2.1. Si et al. 2023.
    """

    FIELD = "freeu"
    RANGES: ClassVar[Ranges] = dict.fromkeys(("b1", "b2", "s1", "s2"), (0.0, 4.0))

    b1: float = 1.3
    b2: float = 1.4
    s1: float = 0.9
    s2: float = 0.2


@dataclass(frozen=True)
class PerturbedAttention(Part):
    """Away from what the network draws when some layers' self-attention is the identity. Ahn et al. 2024 (PAG).

    `layers` are names of the UNet's modules, or beginnings of such names: "mid", "down_blocks.1",
    "up_blocks.0.attentions.1". `adaptive` weakens the scale by that much a training timestep as the noise falls.
    """

    FIELD = "perturbed_attention"
    RANGES: ClassVar[Ranges] = {"scale": (0.0, 100.0), "adaptive": (0.0, 10.0)}

    scale: float = 3.0
    layers: Sequence[str] = ("mid",)
    adaptive: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        layers = (self.layers,) if isinstance(self.layers, str) else self.layers
        if not isinstance(layers, Sequence) or not layers or not all(isinstance(e, str) and e for e in layers):
            raise RequestError(
                f"perturbed_attention.layers is {self.layers!r}; it must be names of layers, such as mid",
                "perturbed_attention.layers",
            )
        object.__setattr__(self, "layers", tuple(layers))

    def among(self, names: Sequence[str]) -> list[str]:
        """Those of the names that begin with one of `layers`; "mid", "down" and "up" stand for all of theirs.

        Raises RequestError, with the names, for the first of `layers` with which none begins.
        """
        whole = {"mid": "mid_block", "down": "down_blocks", "up": "up_blocks"}
        found: dict[str, None] = {}
        for layer in self.layers:
            start = f"{whole.get(layer, layer)}."
            matching = [name for name in names if f"{name}.".startswith(start)]
            if not matching:
                raise RequestError(
                    f"perturbed_attention.layers has {layer!r}, but no block of the UNet has a name that begins so; "
                    f"they are {', '.join(names)}",
                    "perturbed_attention.layers",
                )
            found |= dict.fromkeys(matching)
        return list(found)


@dataclass(frozen=True)
class SelfAttentionGuidance(Part):
    """Away from what the network draws when what it looks at most is blurred. Hong et al. 2022 (SAG).

    `blur` is the standard deviation of the blur in latent cells.
    """

    FIELD = "self_attention_guidance"
    RANGES: ClassVar[Ranges] = {"scale": (0.0, 10.0), "blur": (0.1, 3.0)}

    scale: float = 0.75
    blur: float = 1.0


@dataclass(frozen=True)
class Apg(Part):
    """Adaptive projected guidance: what guidance adds along the prompt's own answer is multiplied by `eta`.

    What it adds is first no longer than `threshold` (0: of any length) and has `momentum` times its sum so far added,
    negative to push away from earlier steps. 1, 0, 0 is ordinary guidance. Sadat et al. 2024, algorithm 1.
    """

    FIELD = "apg"
    RANGES: ClassVar[Ranges] = {"eta": (-10.0, 10.0), "threshold": (0.0, 1000.0), "momentum": (-1.0, 1.0)}

    eta: float = 0.0
    threshold: float = 0.0
    momentum: float = 0.0


@dataclass(frozen=True)
class DynamicThresholding(Part):
    """Guidance at a high scale with the spread of values that `mimic_scale` would give.

    The other fields are those of the extension sd-dynamic-thresholding: `percentile` of the values that need not be
    clamped; `separate_channels`, or all together; `start` of the scaling, the mean or zero; what `measure`s spread, the
    largest difference (ad) or the standard deviation (std); `phi`, how much of it is taken.
    """

    FIELD = "dynamic_thresholding"
    RANGES: ClassVar[Ranges] = {"mimic_scale": (0.0, 100.0), "percentile": (0.5, 1.0), "phi": (0.0, 1.0)}

    mimic_scale: float = 7.0
    percentile: float = 1.0
    separate_channels: bool = True
    start: Literal["mean", "zero"] = "mean"
    measure: Literal["ad", "std"] = "ad"
    phi: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("start", ("mean", "zero")), ("measure", ("ad", "std")), ("separate_channels", (0, 1))):
            if getattr(self, name) not in allowed:
                raise RequestError(
                    f"dynamic_thresholding.{name} is {getattr(self, name)!r}; it must be one of "
                    f"{', '.join(map(str, allowed))}",
                    f"dynamic_thresholding.{name}",
                )
        object.__setattr__(self, "separate_channels", bool(self.separate_channels))


@dataclass(frozen=True)
class SoftInpainting(Part):
    """Grey in the mask, or its blurred edge, is kept at high noise and drawn at low noise: A1111's soft inpainting.

    `preservation_strength` says how much is kept, `schedule_bias` how much more of it at high noise,
    `transition_contrast_boost` how much of the contrast of the stronger side a mixture has. Drawn pixels are taken by
    the mask; with a `difference_threshold`, by how much their latent changed: at that much they are taken by half, the
    more steeply the higher `difference_contrast`, and earlier where the mask is white the higher `mask_influence`.
    """

    FIELD = "soft_inpainting"
    RANGES: ClassVar[Ranges] = {
        "schedule_bias": (0.0, 8.0),
        "preservation_strength": (0.0, 8.0),
        "transition_contrast_boost": (1.0, 32.0),
        "mask_influence": (0.0, 1.0),
        "difference_contrast": (0.0, 8.0),
    }
    THRESHOLDS: ClassVar[tuple[float, float]] = (0.0, 8.0)

    schedule_bias: float = 1.0
    preservation_strength: float = 0.5
    transition_contrast_boost: float = 4.0
    mask_influence: float = 0.0
    difference_threshold: float | None = None
    difference_contrast: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checked = checked_number(f"{self.FIELD}.difference_threshold", self.difference_threshold, *self.THRESHOLDS)
        object.__setattr__(self, "difference_threshold", checked)
        if checked is None and (self.mask_influence, self.difference_contrast) != (0.0, 2.0):
            raise RequestError(
                f"{self.FIELD}.difference_threshold is None, so that pixels are taken by the mask, and "
                "mask_influence or difference_contrast is given; give a threshold from 0 to 8 (A1111's is 0.5), or "
                "leave them out",
                f"{self.FIELD}.difference_threshold",
            )

    @property
    def blending(self) -> dict[str, float]:
        """The numbers that act in each step."""
        return {
            "schedule_bias": self.schedule_bias,
            "preservation_strength": self.preservation_strength,
            "transition_contrast_boost": self.transition_contrast_boost,
        }


@dataclass(frozen=True)
class Refiner(Part):
    """A second model of the same latents, which draws on from the part `at` of the training timesteps.

    0 is pure noise and 1 clean: at 0.8 it draws the last fifth of the timesteps, as diffusers' `denoising_end` and
    `denoising_start` and A1111's switch have it. Podell et al. 2023, section 2.5.
    """

    FIELD = "refiner"
    RANGES: ClassVar[Ranges] = {"at": (0.0, 1.0)}

    model: str
    at: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "model", checked_name("refiner.model", self.model))
        if self.model is None:
            raise RequestError("refiner.model is None; it must be the name or the path of a model", "refiner.model")


P = TypeVar("P", bound=Part)


def checked_part(kind: type[P], value: object) -> P | None:
    """What stands for a part as the part; None stays. Raises RequestError that names what is wrong."""
    if value is None or isinstance(value, kind):
        return value
    names = [field.name for field in fields(kind)]
    if value is True:
        return _made(kind, {}, value)
    if isinstance(value, Mapping):
        unknown = [str(name) for name in value if name not in names]
        if unknown:
            raise RequestError(
                f"{kind.FIELD} is {value!r}, but it has no {unknown[0]!r}; it has {', '.join(names)}", kind.FIELD
            )
        return _made(kind, value, value)
    if isinstance(value, int | float | str | os.PathLike) and not isinstance(value, bool):
        return _made(kind, {names[0]: value}, value)
    raise RequestError(f"{kind.FIELD} is {value!r}; it must be an object of {', '.join(names)}", kind.FIELD)


def _made(kind: type[P], given: Mapping[str, Any], told: object) -> P:
    try:
        return kind(**given)
    except TypeError:  # a field that has no default is missing
        (first, *_) = fields(kind)
        raise RequestError(f"{kind.FIELD} is {told!r}; it needs {first.name}", kind.FIELD) from None


def checked_corner(name: str, value: object) -> tuple[int, int] | None:
    """How far a picture was cropped on the left and above, in pixels. Raises RequestError that names the field."""
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()
    if len(pair) != 2 or None in pair:
        raise RequestError(f"{name} is {value!r}; it must be two numbers of pixels, from the left and from above", name)
    for side in pair:
        check_integer(name, side, 0, CROP_LIMIT)
    return pair[0], pair[1]
