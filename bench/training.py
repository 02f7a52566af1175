"""A training step of a UNet, ours and diffusers': the same weights, batches and optimizer.

Of the embedded model's UNet, and of SD 1.5's, whose weights, gradients and moments alone are 14 GB: its contenders run
one after the other.
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).parents[1] / "configs" / "embedded" / "unet.toml"
TOKENS = 77
SEED = 2
WARM = 2  # steps before any is timed


@dataclass(frozen=True)
class Size:
    """A UNet's options as diffusers names them, latent cells along a side, and samples of a step."""

    title: str
    options: dict[str, Any]
    cells: int
    batch: int


def embedded() -> Size:
    """That of the embedded model."""
    config = tomllib.loads(CONFIG.read_text())
    cells = config["data"]["size"] // 8
    options = {**config["network"], "sample_size": cells}
    return Size("the embedded model's UNet", options, cells, config["run"]["batch"])


def full() -> Size:
    """That of SD 1.5, at 512x512."""
    from bench.folder import FULL, options

    return Size("SD 1.5's UNet", options(FULL)[0], FULL.cells, 1)


SIZES = {"embedded": embedded, "full": full}


def initial_weights(size: Size) -> dict[str, Any]:
    """diffusers' own first weights, from a fixed seed, for both."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(SEED)
    return UNet2DConditionModel.from_config(size.options).state_dict()  # type: ignore[no-any-return]


def trainer(
    size: Size, precision: str, network: Any, predict: Callable[..., Any]
) -> dict[str, Callable[[], dict[str, float]]]:
    """The task "train": one step on a batch that is new each time, the same for everybody; bfloat16 is autocast."""
    import torch
    import torch.nn.functional as F

    network.load_state_dict(initial_weights(size))
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(SEED)

    def step() -> dict[str, float]:
        shape = (size.batch, 4, size.cells, size.cells)
        x = torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)
        timestep = torch.randint(1000, (size.batch,), generator=generator).float()
        context = torch.randn(size.batch, TOKENS, size.options["cross_attention_dim"], generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            output = predict(network, x, timestep, context)
        loss = F.mse_loss(output.float(), x)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.item(), "samples": size.batch}

    return {"train": step}


def ours(size: Size, precision: str) -> dict[str, Callable[[], dict[str, float]]]:
    """sfumato's UNet, with freed memory kept as `sfumato train` keeps it."""
    from sfumato.allocator import keep_freed_memory
    from sfumato.nn.unet import UNet, UNetConfig

    keep_freed_memory()
    return trainer(
        size,
        precision,
        UNet(UNetConfig.from_json(size.options)),
        lambda network, x, timestep, context: network(x, timestep, context),
    )


def diffusers(size: Size, precision: str, *, keep: bool) -> dict[str, Callable[[], dict[str, float]]]:
    """diffusers' UNet, as it comes or with freed memory kept."""
    from diffusers import UNet2DConditionModel

    if keep:
        from sfumato.allocator import keep_freed_memory

        keep_freed_memory()
    return trainer(
        size,
        precision,
        UNet2DConditionModel.from_config(size.options),
        lambda network, x, timestep, context: network(x, timestep, context).sample,
    )


Tasks = dict[str, Callable[[], dict[str, float]]]
WHO: dict[str, Callable[[Size, str], Tasks]] = {
    "sfumato": ours,
    "diffusers": lambda size, precision: diffusers(size, precision, keep=False),
    "diffusers-kept": lambda size, precision: diffusers(size, precision, keep=True),
}


def maker(who: str, size: str) -> Callable[[str], Tasks]:
    """What makes the trainer of one of SIZES in a precision."""
    return lambda precision: WHO[who](SIZES[size](), precision)


TRAINERS: dict[str, Callable[[str], Tasks]] = {f"train-{size}-{who}": maker(who, size) for size in SIZES for who in WHO}
