"""How deep the transformers of a single file's UNet are, told from its names: distilled models have fewer layers.

SSD-1B and Vega (Segmind, 2023) are SDXL with fewer transformer blocks in each layer, and with one resnet block alone
at the lowest resolution. https://huggingface.co/segmind/SSD-1B: unet/config.json
"""

import re
from collections.abc import Container, Iterable
from dataclasses import replace

from sfumato.nn.unet import UNetConfig, down_depths, up_depths
from sfumato.weights.ldm import UNET_PREFIX, unet_modules

BLOCK = re.compile(re.escape(UNET_PREFIX) + r"(.+?\.1\.)transformer_blocks\.(\d+)\.norm1\.weight")


def with_fewer_layers(config: UNetConfig, names: Iterable[str]) -> UNetConfig:
    """Return a family's configuration with as many transformer blocks as a single file has tensors for.

    The configuration itself where the file has what it says, and where it has blocks that no such network has.
    """
    listed = set(names)
    found: dict[str, int] = {}
    for match in filter(None, map(BLOCK.fullmatch, listed)):
        found[match[1]] = max(found.get(match[1], 0), int(match[2]) + 1)
    down = [tuple(found.get(theirs, 0) for theirs in level) for level in attentions(config, "down_blocks")]
    up = [tuple(found.get(theirs, 0) for theirs in level) for level in attentions(config, "up_blocks")]
    middle = middle_of(listed)
    if not all(depth for level in (*down, *up) for depth in level) or middle is None:
        return config
    if (down, up, middle) == (down_depths(config), up_depths(config), config.mid_block_type):
        return config
    return replace(
        config,
        transformer_layers_per_block=tuple(level or 1 for level in down),
        reverse_transformer_layers_per_block=tuple(level or 1 for level in up),
        mid_block_type=middle,
    )


def attentions(config: UNetConfig, path: str) -> list[list[str]]:
    """List what latent-diffusion calls the transformers of each level of a path."""
    modules = unet_modules(config)
    return [
        [theirs for ours, theirs in modules if ours.startswith(f"{path}.{level}.attentions.")]
        for level in range(config.levels)
    ]


def middle_of(names: Container[str]) -> str | None:
    """Tell the kind of the lowest resolution from the resnet blocks that it has; None for another."""
    first, last = (f"{UNET_PREFIX}middle_block.{place}.in_layers.0.weight" in names for place in (0, 2))
    if first and last:
        return "UNetMidBlock2DCrossAttn"
    return "UNetMidBlock2D" if first else None
