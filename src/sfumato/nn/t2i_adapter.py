"""T2I-Adapter: a small network that makes of a picture what is added to each level of a UNet. Mou et al. 2023."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.nn.config import Options, check_values, known_options, plain, unsupported

TYPES = ("full_adapter", "full_adapter_xl", "light_adapter")


@dataclass(frozen=True)
class T2IAdapterConfig:
    """What a T2I-Adapter's `config.json` says, under diffusers' names.

    `in_channels`: 1 for a grey picture, 3 for colours; `downscale_factor`: pixels of the picture for each cell of the
    first level, in each direction.
    """

    in_channels: int = 3
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    num_res_blocks: int = 2
    downscale_factor: int = 8
    adapter_type: str = "full_adapter"

    def __post_init__(self) -> None:
        check_values(self, ("in_channels", "channels", "num_res_blocks", "downscale_factor"))
        if self.adapter_type not in TYPES:
            raise unsupported("T2IAdapterConfig", "adapter_type", self.adapter_type, ", ".join(TYPES))
        if self.in_channels not in (1, 3):
            raise unsupported("T2IAdapterConfig", "in_channels", self.in_channels, "1 (grey) or 3 (RGB)")

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of each map that it makes."""
        return (*self.channels, self.channels[-1]) if self.adapter_type == "light_adapter" else self.channels

    @classmethod
    def from_json(cls, data: Options) -> "T2IAdapterConfig":
        """The config that diffusers' `config.json` states. Raises ConfigError naming what we cannot honour."""
        return cls(**known_options(cls, data, fixed={}, required=("channels",)))

    def to_json(self) -> dict[str, object]:
        """The same as diffusers writes it, so that diffusers can read it."""
        stated = {field.name: plain(getattr(self, field.name)) for field in fields(self)}
        return {"_class_name": "T2IAdapter", **stated}


class AdapterResnet(nn.Module):
    """Two convolutions with a ReLU between them, added to the input; the second sees 1 or 9 cells."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.block1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.block2 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.block2(F.relu(self.block1(x))) + x  # type: ignore[no-any-return]


class AdapterLevel(nn.Module):
    """One resolution: perhaps halved, then brought to its width, then resnets; a light one is narrower inside."""

    def __init__(self, channels: int, out_channels: int, *, layers: int, halve: bool, light: bool) -> None:
        super().__init__()
        self.halve = halve
        inner = out_channels // 4 if light else out_channels
        self.in_conv = nn.Conv2d(channels, inner, 1) if light or channels != inner else None
        self.resnets = nn.Sequential(*[AdapterResnet(inner, 3 if light else 1) for _ in range(layers)])
        self.out_conv = nn.Conv2d(inner, out_channels, 1) if light else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, out, h, w], or half of it, rounded up."""
        if self.halve:
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        if self.in_conv is not None:
            x = self.in_conv(x)
        x = self.resnets(x)
        return x if self.out_conv is None else self.out_conv(x)


class Levels(nn.Module):
    """The network itself; diffusers keeps it one name deeper."""

    def __init__(self, config: T2IAdapterConfig) -> None:
        super().__init__()
        self.factor = config.downscale_factor
        light = config.adapter_type == "light_adapter"
        channels = config.in_channels * config.downscale_factor**2
        self.conv_in = None if light else nn.Conv2d(channels, config.channels[0], 3, padding=1)
        before: Sequence[int] = (channels if light else config.channels[0], *config.widths)
        # SDXL's first level is halved before anything attends, and its lowest is not halved again.
        halved = (2,) if config.adapter_type == "full_adapter_xl" else range(1, len(config.widths))
        self.body = nn.ModuleList(
            AdapterLevel(before[place], width, layers=config.num_res_blocks, halve=place in halved, light=light)
            for place, width in enumerate(config.widths)
        )

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        x = F.pixel_unshuffle(picture, self.factor)
        if self.conv_in is not None:
            x = self.conv_in(x)
        maps = []
        for level in self.body:
            x = level(x)
            maps.append(x)
        return tuple(maps)


class T2IAdapter(nn.Module):
    """Mou et al. 2023. What it makes depends on the picture alone: once a run, not once a step."""

    def __init__(self, config: T2IAdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.adapter = Levels(config)

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """A picture [B, 1 or 3, H, W] in [0, 1] to the maps for `Additions.levels`, highest resolution first."""
        return self.adapter(picture)  # type: ignore[no-any-return]
