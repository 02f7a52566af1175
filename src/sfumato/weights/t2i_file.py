"""A T2I-Adapter's file: diffusers' names, or those of the original code, with their configuration.

https://github.com/TencentARC/T2I-Adapter: ldm/modules/encoders/adapter.py
"""

from pathlib import Path

from sfumato.errors import WeightsError
from sfumato.nn.t2i_adapter import T2IAdapter, T2IAdapterConfig
from sfumato.weights.build import Part, check_parts, shapes_of
from sfumato.weights.files import TensorFile
from sfumato.weights.naming import Naming, Rule, identity
from sfumato.weights.network_config import network_of
from sfumato.weights.opened import Component
from sfumato.weights.recognise import Shapes, first_layer

PREFIX = "adapter."  # of diffusers' names
FACTORS = {64: (1, 8), 192: (3, 8), 256: (1, 16), 768: (3, 16)}  # channels seen -> those of the picture, and its factor


def is_t2i_adapter(shapes: Shapes) -> bool:
    """Say whether the tensors are a T2I-Adapter's, in either naming."""
    firsts = ("body.0.resnets.0.block1.weight", "body.0.block1.weight", "body.0.body.0.block1.weight")
    return any(prefix + name in shapes for prefix in (PREFIX, "") for name in firsts)


def t2i_component(path: Path, tensors: TensorFile, config: T2IAdapterConfig | None) -> Component:
    """Compare a T2I-Adapter's file with its configuration, which is `config` where a folder says it.

    Raises WeightsError if they differ, or there is no telling.
    """
    shapes = shapes_of(tensors)
    config = config or config_of(path, shapes)
    network = network_of(lambda: T2IAdapter(config), path)
    names = list(network.state_dict())
    ours = any(name.startswith(PREFIX) for name in shapes)
    naming = identity(names) if ours else original_naming(config, names)
    part = Part("T2I-Adapter", network, naming)
    check_parts(path, "this T2I-Adapter", [part], tensors, set(tensors) - {rule.theirs for rule in naming})
    return Component(part, tensors)


def config_of(path: Path, shapes: Shapes) -> T2IAdapterConfig:
    """Return the configuration that a file's shapes show."""
    prefix = PREFIX if any(name.startswith(PREFIX) for name in shapes) else ""
    light = f"{prefix}conv_in.weight" not in shapes
    first = f"{prefix}body.0.in_conv.weight" if light else f"{prefix}conv_in.weight"
    seen = first_layer(shapes, first)[1] if first in shapes else 0
    if seen not in FACTORS:
        raise WeightsError(
            f"{path} is no T2I-Adapter of a published size: its first layer sees {seen} channels; supported are "
            f"{', '.join(map(str, FACTORS))}. Name the folder with its config."
        )
    channels, factor = FACTORS[seen]
    if light:
        inner = "resnets" if prefix else "body"
        layers = count(shapes, f"{prefix}body.0.{inner}.{{}}.block1.weight")
        widths = widths_of(shapes, f"{prefix}body.{{}}.out_conv.weight")[:-1]
    elif prefix:
        layers = count(shapes, f"{prefix}body.0.resnets.{{}}.block1.weight")
        widths = widths_of(shapes, f"{prefix}body.{{}}.resnets.0.block1.weight")
    else:
        layers = 2  # of every published one; one list of all layers does not show where a level ends
        widths = widths_of(shapes, "body.{}.block1.weight")[::layers]
    kind = "light_adapter" if light else "full_adapter_xl" if factor == 16 else "full_adapter"
    return T2IAdapterConfig(channels, widths, layers, factor, kind)


def count(shapes: Shapes, pattern: str) -> int:
    """Count the tensors of a pattern with a number in it, from 0 on."""
    return next(number for number in range(len(shapes) + 1) if pattern.format(number) not in shapes)


def widths_of(shapes: Shapes, pattern: str) -> tuple[int, ...]:
    """Return the output channels of convolutions whose names have a number in them, from 0 on."""
    return tuple(first_layer(shapes, pattern.format(number))[0] for number in range(count(shapes, pattern)))


def original_naming(config: T2IAdapterConfig, names: list[str]) -> Naming:
    """Return the rules for a T2I-Adapter's tensors `names` under the original code's names."""
    return tuple(Rule(original_name(config, name.removeprefix(PREFIX)), (name,)) for name in names)


def original_name(config: T2IAdapterConfig, name: str) -> str:
    """Translate one name. Theirs counts the layers of all levels through, but in light adapters."""
    parts = name.split(".")
    if config.adapter_type == "light_adapter":
        return ".".join("body" if part == "resnets" else part for part in parts)
    if parts[0] != "body":
        return name
    first = int(parts[1]) * config.num_res_blocks
    if parts[2] == "resnets":
        return ".".join(["body", str(first + int(parts[3])), *parts[4:]])
    return ".".join(["body", str(first), *parts[2:]])
