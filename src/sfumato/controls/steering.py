"""Pictures that steer a run: each shown to its control network once, then acting beside the prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from sfumato.controls.adders import ControlNetAdder, ImageAdder, LevelsAdder, Span, span
from sfumato.nn.additions import Adder
from sfumato.nn.controlnet import ControlNet
from sfumato.nn.ip_adapter import Prompter
from sfumato.nn.t2i_adapter import T2IAdapter
from sfumato.request import Control, ControlMode, ImagePrompt
from sfumato.text.told import Composition, Told

SOFT = 0.825  # how much less each residual counts than the one below it; sd-webui-controlnet's "prompt" mode
SOFT_LEVELS = (0.25, 0.62, 0.825, 1.0)  # the same for the levels of a T2I-Adapter
GREY = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as Pillow's "L"


@dataclass(frozen=True)
class Steering:
    """A control of a request, its network and the picture that it sees, [1, 3, H, W] in [0, 1]."""

    control: Control
    network: nn.Module
    picture: Tensor

    @cached_property
    def view(self) -> tuple[Tensor, ...]:
        """What the network makes of the picture alone."""
        return look(self.network, self.picture)

    def adders(self, batch: int, sigmas: Sequence[float]) -> tuple[Adder, Adder] | None:
        """What acts in a run over these levels, on the prompts' and on the negative prompts' branch of a batch."""
        control = self.control
        acting = span(sigmas, control.start, control.end)
        if acting is None or control.weight == 0:
            return None
        view = tuple(each.expand(batch, -1, -1, -1) for each in self.view)
        if isinstance(self.network, ControlNet):
            count = len(self.network.controlnet_down_blocks) + 1
            weights = residual_weights(control.mode, count) * control.weight
            alone = control.mode in ("control", "guess") or self.network.control.global_pool_conditions
        else:
            count = len(view)
            weights = level_weights(control.mode, count) * control.weight
            alone = control.mode == "control"
        rows = weights.expand(batch, -1)
        both = (rows, torch.zeros_like(rows) if alone else rows)
        positive, negative = (adder(self.network, view, each, acting) for each in both)
        return positive, negative


@dataclass(frozen=True)
class Prompting:
    """An image prompt of a request, its networks and the pictures as the encoder sees them, [N, 3, S, S].

    `masks`: how much each cell of a map of so many cells counts; see `ImageTokens`.
    """

    prompt: ImagePrompt
    network: Prompter
    pixels: Tensor
    masks: Mapping[int, Tensor] = field(default_factory=dict)

    @cached_property
    def tokens(self) -> tuple[Tensor, Tensor]:
        """The tokens of the pictures, and those of nothing, [1, n, C] each."""
        pixels = self.pixels.to(next(self.network.parameters()))
        with torch.no_grad():
            return self.network(pixels), self.network.nothing(pixels)

    def adders(self, batch: int, sigmas: Sequence[float]) -> tuple[Adder, Adder] | None:
        """What acts in a run over these levels, on the prompts' and on the negative prompts' branch of a batch."""
        prompt = self.prompt
        acting = span(sigmas, prompt.start, prompt.end)
        if acting is None or prompt.weight == 0:
            return None
        positive, negative = (
            ImageAdder(self.network.layers, tokens.expand(batch, -1, -1), prompt.weight, acting, self.masks)
            for tokens in self.tokens
        )
        return positive, negative


def masks_of(mask: Tensor, stride: int, levels: int) -> dict[int, Tensor]:
    """A mask [1, 1, H, W] for the feature maps of each level: number of cells -> [1, cells, 1].

    Interpolated as diffusers does, which the published adapters' users know.
    """
    rows, columns = mask.shape[2] // stride, mask.shape[3] // stride
    found = {}
    for _ in range(levels):
        found[rows * columns] = (
            nn.functional.interpolate(mask, (rows, columns), mode="bicubic").flatten(2).transpose(1, 2)
        )
        rows, columns = -(-rows // 2), -(-columns // 2)
    return found


@torch.no_grad()
def look(network: nn.Module, picture: Tensor) -> tuple[Tensor, ...]:
    """What a control network makes of a picture [1, 3, H, W] before it sees a latent."""
    picture = picture.to(next(network.parameters()))
    if isinstance(network, ControlNet):
        channels = network.control.conditioning_channels
        return (network.see(grey(picture) if channels == 1 else picture),)
    assert isinstance(network, T2IAdapter)
    # what is not a whole number of its cells gets a margin, whose cells the latent does not have
    factor = network.config.downscale_factor
    height, width = picture.shape[2:]
    picture = nn.functional.pad(picture, (0, -width % factor, 0, -height % factor), mode="replicate")
    return network(grey(picture) if network.config.in_channels == 1 else picture)  # type: ignore[no-any-return]


def grey(picture: Tensor) -> Tensor:
    """[B, 3, H, W] to [B, 1, H, W]."""
    return (picture * picture.new_tensor(GREY)[:, None, None]).sum(1, keepdim=True)


def adder(network: nn.Module, view: tuple[Tensor, ...], weights: Tensor, acting: Span) -> Adder:
    """The adder of a control network."""
    if isinstance(network, ControlNet):
        return ControlNetAdder(network, view[0], weights, acting)
    return LevelsAdder(view, weights, acting)


def residual_weights(mode: ControlMode, count: int) -> Tensor:
    """How much each residual of a ControlNet counts, finest first, [1, count].

    sd-webui-controlnet has 0.825^(12 - i) for every model; SDXL's ten residuals begin at 0.825^9 here, so that the last
    of them counts whole as it does for SD 1.x.
    """
    if mode == "balanced":
        return torch.ones(1, count)
    if mode == "guess":
        return torch.logspace(-1, 0, count)[None]  # diffusers' guess mode
    return SOFT ** torch.arange(count - 1, -1, -1, dtype=torch.float32)[None]


def level_weights(mode: ControlMode, count: int) -> Tensor:
    """How much each level of a T2I-Adapter counts, finest first, [1, count]."""
    if mode == "balanced":
        return torch.ones(1, count)
    return torch.tensor((*(SOFT_LEVELS[0],) * (count - len(SOFT_LEVELS)), *SOFT_LEVELS)[-count:])[None]


def steered(
    positive: Told, negative: Told, steerings: Sequence[Steering | Prompting], sigmas: Sequence[float]
) -> tuple[Told, Told]:
    """What a batch is told with what steers a run over these levels; the same where nothing does."""
    pairs = [pair for each in steerings if (pair := each.adders(len(positive), sigmas)) is not None]
    if not pairs:
        return positive, negative
    prompts, negatives = zip(*pairs, strict=True)
    told = positive.each(lambda each: replace(each, adders=prompts))
    if isinstance(told, Composition):  # which has the negative prompt in it, too
        told = replace(told, negative=told.negative.each(lambda each: replace(each, adders=negatives)))
    return told, negative.each(lambda each: replace(each, adders=negatives))
