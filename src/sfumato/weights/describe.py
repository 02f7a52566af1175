"""What a model on disk is, from its headers and configurations alone: for people who choose one."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from sfumato.diffusion.denoiser import Prediction
from sfumato.errors import ModelFileError, SfumatoError
from sfumato.model import COMPANION
from sfumato.weights.build import shapes_of
from sfumato.weights.companion import WHAT, base_of, is_companion
from sfumato.weights.control_file import ControlKind, OpenedControl, open_control
from sfumato.weights.control_lora import whole_shapes
from sfumato.weights.controlnet_file import controlnet_base, is_controlnet
from sfumato.weights.files import TensorFile, open_file
from sfumato.weights.header import TensorInfo
from sfumato.weights.load import open_model
from sfumato.weights.locate import locate
from sfumato.weights.lora_describe import LoraDescription, describe_lora
from sfumato.weights.lora_family import family_title
from sfumato.weights.lora_file import lora_files
from sfumato.weights.opened import Component, Opened
from sfumato.weights.recognise import LORA, Recognised, recognise


@dataclass(frozen=True, kw_only=True)
class ComponentDescription:
    """A part of a model: its number of parameters, its precisions (most used first), its bytes, its files."""

    parameters: int
    dtypes: tuple[str, ...]
    size: int
    files: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a file or folder holds.

    `family` is None when it is no model that can draw; `problem` then says what is wrong with it, `what` what it looks
    like, and `reason` what shows it; `lora` is there when it is a LoRA, `control` when it is a control network.
    `prediction` None means that it has to be told. `default_size` is in pixels.
    """

    path: Path
    what: str
    reason: str
    family: str | None = None
    prediction: Prediction | None = None
    prediction_reason: str = ""
    default_size: int | None = None
    default_steps: int | None = None
    default_guidance: float | None = None
    inpainting: bool = False
    components: dict[str, ComponentDescription]
    notes: tuple[str, ...] = ()
    problem: str | None = None
    lora: LoraDescription | None = None
    control: ControlKind | None = None


def describe(name: str | Path | None = None, *, variant: str | None = None, revision: str | None = None) -> Description:
    """Describe a model, or the file that is none, without reading a weight; names as in `load`.

    Raises ModelNotFoundError for a name that leads nowhere, and ModelFileError for a file that cannot be read at all.
    """
    try:
        opened = open_model(name, variant=variant, revision=revision)
    except SfumatoError as error:
        if name is None:
            raise
        return describe_other(locate(name, revision), error)
    return Description(
        path=opened.path,
        what=opened.family.title,
        reason=opened.reason,
        family=opened.family.name,
        prediction=opened.prediction,
        prediction_reason=opened.prediction_reason,
        default_size=opened.family.size,
        default_steps=opened.family.steps,
        default_guidance=opened.family.guidance,
        inpainting=opened.family.inpainting,
        components=describe_components(opened),
        notes=opened.notes,
    )


def describe_other(path: Path, error: SfumatoError) -> Description:
    """Describe a file or folder that is no model that can draw; raises `error` if it cannot be read."""
    control = describe_control(path, str(error))
    if control is not None:
        return control
    if path.is_dir():
        files = lora_files(path)
        if len(files) != 1 or (path / "model_index.json").is_file():
            raise error
        path = files[0]
    tensors = open_file(path)
    looks = recognise(shapes_of(tensors))
    whole = summary(tensors.infos.values(), tensors)
    if is_companion(tensors):
        looks = Recognised(
            f"an {WHAT}", None, f"its metadata say so, and for a UNet with the sha256 {base_of(tensors)}"
        )
    if looks.what == LORA:
        return describe_lora_file(path, looks, whole, str(error))
    return Description(path=path, what=looks.what, reason=looks.reason, components={"file": whole}, problem=str(error))


def describe_control(path: Path, problem: str) -> Description | None:
    """Describe a control network; None if it is none that can be used."""
    try:
        opened = open_control(path)
    except ModelFileError:
        return describe_own_controlnet(path, problem)
    return Description(
        path=path,
        what=opened.title,
        reason=opened.reason,
        components={"file": describe_file(opened)},
        problem=problem,
        control=opened.kind,
    )


def describe_file(opened: OpenedControl) -> ComponentDescription:
    """Describe the weights of a control network; those of a Control-LoRA as they are, since others belong to them."""
    tensors = opened.component.tensors
    return describe_component(opened.component) if opened.low_rank is None else summary(tensors.infos.values(), tensors)


def describe_own_controlnet(path: Path, problem: str) -> Description | None:
    """Describe a ControlNet in sizes of its own, which can only be opened for its model; None for others."""
    if path.is_dir():
        return None
    tensors = open_file(path)
    shapes = whole_shapes(shapes_of(tensors))
    family, reason = controlnet_base(shapes)
    if family is not None or not is_controlnet(shapes):
        return None
    return Description(
        path=path,
        what="a ControlNet for a model of its own sizes",
        reason=reason,
        components={"file": summary(tensors.infos.values(), tensors)},
        problem=problem,
        control="ControlNet",
    )


def describe_lora_file(path: Path, looks: Recognised, whole: ComponentDescription, problem: str) -> Description:
    """Describe a LoRA; what is wrong with it, if something is, goes into the notes."""
    plain = Description(path=path, what=looks.what, reason=looks.reason, components={"file": whole}, problem=problem)
    try:
        lora = describe_lora(path)
    except ModelFileError as error:
        return replace(plain, notes=(str(error),))
    return replace(plain, what=f"{LORA} for {family_title(lora.family)}", reason=lora.reason, lora=lora)


def describe_components(opened: Opened) -> dict[str, ComponentDescription]:
    """Count what each component of a model has; its companion's too."""
    found = {name: describe_component(each) for name, each in opened.components.items()}
    companion = opened.companion
    return found if companion is None else {**found, COMPANION: summary(companion.infos.values(), companion)}


def describe_component(component: Component) -> ComponentDescription:
    """Count a component's parameters and bytes."""
    tensors = component.tensors
    return summary((tensors.infos[rule.theirs] for rule in component.part.naming), tensors)


def summary(infos: Iterable[TensorInfo], tensors: TensorFile) -> ComponentDescription:
    """Add up tensors."""
    counts: Counter[str] = Counter()
    size = 0
    for info in infos:
        counts[info.dtype] += info.count
        size += info.end - info.start
    dtypes = tuple(dtype for dtype, _ in counts.most_common())
    return ComponentDescription(parameters=counts.total(), dtypes=dtypes, size=size, files=tensors.paths)
