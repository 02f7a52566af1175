"""A control network's folder or file, of any kind and in any naming: found, understood and checked, not yet read."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sfumato.errors import ModelFileError, ModelNotFoundError, WeightsError
from sfumato.nn.controlnet import ControlNetConfig
from sfumato.nn.controlnet_union import ControlNetUnionConfig
from sfumato.nn.ip_adapter import IPAdapter
from sfumato.nn.t2i_adapter import T2IAdapterConfig
from sfumato.nn.unet import UNetConfig
from sfumato.weights.build import shapes_of
from sfumato.weights.component_files import SUFFIXES, UNET_STEM, find_weights, variants, weight_files
from sfumato.weights.control_difference import is_difference
from sfumato.weights.control_lora import ControlLora, is_control_lora, whole_shapes
from sfumato.weights.controlnet_file import (
    control_lora_component,
    controlnet_base,
    controlnet_component,
    is_controlnet,
    is_union,
)
from sfumato.weights.families import FAMILIES
from sfumato.weights.files import open_file, read_json
from sfumato.weights.ip_adapter_file import ip_adapter_base, ip_adapter_component, is_ip_adapter
from sfumato.weights.locate import expanded, is_there, locate
from sfumato.weights.network_config import network_config
from sfumato.weights.opened import Component
from sfumato.weights.recognise import recognise
from sfumato.weights.t2i_file import is_t2i_adapter, t2i_component

ControlKind = Literal["ControlNet", "T2I-Adapter", "IP-Adapter"]
CLASSES: dict[str, ControlKind] = {
    "ControlNetModel": "ControlNet",
    "ControlNetUnionModel": "ControlNet",
    "ControlNetModel_Union": "ControlNet",
    "T2IAdapter": "T2I-Adapter",
}


@dataclass(frozen=True, kw_only=True)
class OpenedControl:
    """A control network, not yet read: its kind, the family that it is made for (None: no published one), and why.

    `added`: its weights are to be added to those of the UNet.
    """

    path: Path
    kind: ControlKind
    family: str | None
    reason: str
    component: Component
    low_rank: ControlLora | None = None
    added: bool = False

    @property
    def title(self) -> str:
        """What it is, in words."""
        whose = "a model of its own sizes" if self.family is None else FAMILIES[self.family].title
        kind = self.kind if self.low_rank is None else "Control-LoRA"
        name = f"{'an' if kind == 'IP-Adapter' else 'a'} {kind} for {whose}"
        return f"{name}, as its difference to a UNet" if self.added else name


def locate_control(name: str) -> Path:
    """Return the place of a control network: an alias, a path, or `org/name` in the local cache.

    Raises ModelNotFoundError, which suggests a file of a like name in the same folder.
    """
    try:
        return the_place(locate(name, kind="controlnet"))
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"the control network {name!r} is not there: {error}{sibling(name)}") from error


def sibling(name: str) -> str:
    """Suggest a file beside the one that is not there, as a sentence, or say nothing."""
    path = expanded(name)
    if "Did you mean" in name or not is_there(path.parent):
        return ""
    there = [each.name for each in path.parent.iterdir() if each.suffix in SUFFIXES or each.is_dir()]
    found = difflib.get_close_matches(path.name, there, n=1)
    return f" Did you mean {str(path.with_name(found[0]))!r}?" if found else ""


def the_place(path: Path) -> Path:
    """Return a folder with a configuration, or else the one file in it."""
    if not path.is_dir() or (path / "config.json").is_file():
        return path
    files = weight_files(path)
    if len(files) != 1:
        there = ", ".join(each.name for each in files) or "no weight file"
        raise ModelFileError(f"{path}: a folder with {there} and no config.json; name the control network's file.")
    return files[0]


def weights_of(path: Path) -> Path:
    """Return the weights of a control network: the file itself, or the one in a folder, a variant if need be."""
    if not path.is_dir():
        return path
    there = variants(path, UNET_STEM)
    return find_weights(path, UNET_STEM, None if not there or "" in there else there[0])


def open_control(path: Path, like: UNetConfig | None = None) -> OpenedControl:
    """Open a control network without reading a weight; `like` is the UNet that it is for.

    Raises ModelFileError for what cannot be read, WeightsError for what is no control network, or half of one.
    """
    path = the_place(path)
    stated: Mapping[str, Any] = read_json(path / "config.json") if path.is_dir() else {}
    tensors = open_file(weights_of(path))
    shapes = shapes_of(tensors)
    kind = CLASSES.get(str(stated.get("_class_name")))
    if not stated and is_control_lora(shapes):
        component, low_rank = control_lora_component(path, tensors, like)
        family, reason = controlnet_base(whole_shapes(shapes))
        return OpenedControl(
            path=path, kind="ControlNet", family=family, reason=reason, component=component, low_rank=low_rank
        )
    if kind == "ControlNet" or (not stated and is_controlnet(shapes)):
        form = ControlNetUnionConfig if is_union(shapes) else ControlNetConfig
        config = network_config(form.from_json, stated, path / "config.json") if stated else None
        component = controlnet_component(path, tensors, config, like)
        family, reason = controlnet_base(shapes)
        added = is_difference(shapes)
        return OpenedControl(
            path=path, kind="ControlNet", family=family, reason=reason, component=component, added=added
        )
    if kind == "T2I-Adapter" or (not stated and is_t2i_adapter(shapes)):
        adapter = network_config(T2IAdapterConfig.from_json, stated, path / "config.json") if stated else None
        component = t2i_component(path, tensors, adapter)
        family, reason = t2i_base(component)
        return OpenedControl(path=path, kind="T2I-Adapter", family=family, reason=reason, component=component)
    if is_ip_adapter(shapes):
        component = ip_adapter_component(path, tensors)
        prompter = component.part.network
        assert isinstance(prompter, IPAdapter)
        family, reason = ip_adapter_base(prompter.config)
        return OpenedControl(path=path, kind="IP-Adapter", family=family, reason=reason, component=component)
    looks = recognise(shapes)
    raise WeightsError(
        f"{path} is no control network: it looks like {looks.what} ({looks.reason}). Name a ControlNet, "
        "a T2I-Adapter or an IP-Adapter."
    )


def t2i_base(component: Component) -> tuple[str | None, str]:
    """Return the family that a T2I-Adapter looks made for; SD 2.x has the same widths as 1.x, and none is published."""
    config = component.part.network.config
    assert isinstance(config, T2IAdapterConfig)
    reason = f"it is a {config.adapter_type} with {', '.join(map(str, config.channels))} features"
    if config.widths != (320, 640, 1280, 1280):
        return None, reason
    return ("sdxl" if config.adapter_type == "full_adapter_xl" else "sd15"), reason
