"""An IP-Adapter's file with the names it was published with: `image_proj.*` and `ip_adapter.*`.

https://github.com/tencent-ailab/IP-Adapter; the files of huggingface.co/h94/IP-Adapter.
"""

from pathlib import Path

from sfumato.errors import WeightsError
from sfumato.nn.attention import CrossAttention
from sfumato.nn.ip_adapter import HEAD, IPAdapter, IPAdapterConfig
from sfumato.nn.unet import UNet
from sfumato.weights.build import Part, check_parts, shapes_of
from sfumato.weights.files import TensorFile
from sfumato.weights.naming import identity
from sfumato.weights.network_config import network_of
from sfumato.weights.opened import Component
from sfumato.weights.recognise import Shapes

PROJ = "image_proj."
KEYS = "ip_adapter."
FACES = ("perceiver_resampler.", "to_q_lora.", "to_k_lora.")  # of FaceID's files, in a name
CONTEXTS = {768: "sd15", 1024: "sd2", 2048: "sdxl"}


def is_ip_adapter(shapes: Shapes) -> bool:
    """Say whether the tensors are an IP-Adapter's."""
    return f"{KEYS}1.to_k_ip.weight" in shapes


def ip_adapter_component(path: Path, tensors: TensorFile) -> Component:
    """Compare an IP-Adapter's file with the network that its shapes show. Raises WeightsError if they differ."""
    shapes = shapes_of(tensors)
    config = config_of(path, shapes)
    network = network_of(lambda: IPAdapter(config), path)
    naming = identity(list(network.state_dict()))
    part = Part("IP-Adapter", network, naming)
    check_parts(path, "this IP-Adapter", [part], tensors, set(tensors) - {rule.theirs for rule in naming})
    return Component(part, tensors)


def config_of(path: Path, shapes: Shapes) -> IPAdapterConfig:
    """Return the sizes that an IP-Adapter's tensors show. Raises WeightsError for a kind that we do not have."""
    numbers = sorted(
        int(name.split(".")[1]) for name in shapes if name.startswith(KEYS) and name.endswith("to_k_ip.weight")
    )
    widths = tuple(size(shapes, f"{KEYS}{number}.to_k_ip.weight", 0) for number in numbers)
    context = size(shapes, f"{KEYS}1.to_k_ip.weight", 1)
    face = any(part in name for name in shapes for part in FACES) or f"{PROJ}norm.weight" in shapes
    if face and f"{PROJ}proj.weight" not in shapes:
        raise WeightsError(f"{path} is an IP-Adapter for faces (FaceID), which needs a face recogniser: not supported.")
    if f"{PROJ}proj.weight" in shapes:
        tokens = size(shapes, f"{PROJ}proj.weight", 0) // context
        return IPAdapterConfig("plain", size(shapes, f"{PROJ}proj.weight", 1), context, widths, tokens)
    if f"{PROJ}proj.3.weight" in shapes:
        return IPAdapterConfig("full", size(shapes, f"{PROJ}proj.0.weight", 1), context, widths)
    layers = len({name.split(".")[2] for name in shapes if name.startswith(f"{PROJ}layers.")})
    return IPAdapterConfig(
        "plus",
        size(shapes, f"{PROJ}proj_in.weight", 1),
        context,
        widths,
        tokens=size(shapes, f"{PROJ}latents", 1),
        inner=size(shapes, f"{PROJ}proj_in.weight", 0),
        layers=layers,
        heads=max(1, size(shapes, f"{PROJ}layers.0.0.to_q.weight", 0) // HEAD),
    )


def size(shapes: Shapes, name: str, axis: int) -> int:
    """Return a tensor's size along an axis; 1 where there is no such tensor, which is told when all are compared."""
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) > axis and shape[axis] else 1


def ip_adapter_base(config: IPAdapterConfig) -> tuple[str | None, str]:
    """Return the family that an IP-Adapter looks made for, None if it is no published one, and why."""
    return CONTEXTS.get(config.context), f"its tokens have {config.context} features, for {len(config.widths)} layers"


def ways(unet: UNet) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return the widths of a UNet's cross-attentions on the way down, on the way up and in the middle."""
    down, up, middle = (
        tuple(each.to_q.out_features for each in part.modules() if isinstance(each, CrossAttention))
        for part in (unet.down_blocks, unet.up_blocks, unet.mid_block)
    )
    return down, up, middle
