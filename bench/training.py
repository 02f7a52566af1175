"""A training step of the embedded model's UNet, ours and diffusers': the same weights, batch and optimizer."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).parents[1] / "configs" / "embedded" / "unet.toml"
TOKENS = 77
SEED = 2
WARM = 2  # steps before any is timed


def network_config() -> tuple[dict[str, Any], int, int]:
    """The UNet's options as diffusers names them, the batch and the latent cells along a side."""
    config = tomllib.loads(CONFIG.read_text())
    return (
        {**config["network"], "sample_size": config["data"]["size"] // 8},
        config["run"]["batch"],
        config["data"]["size"] // 8,
    )


def initial_weights() -> dict[str, Any]:
    """diffusers' own first weights, from a fixed seed, for both."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(SEED)
    return UNet2DConditionModel.from_config(network_config()[0]).state_dict()


def trainer(network: Any, predict: Callable[..., Any]) -> dict[str, Callable[[], dict[str, float]]]:
    """The task "train": one step in bfloat16 autocast on a batch that is new each time, the same for everybody."""
    import torch
    import torch.nn.functional as F

    options, batch, cells = network_config()
    network.load_state_dict(initial_weights())
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(SEED)

    def step() -> dict[str, float]:
        x = torch.randn(batch, 4, cells, cells, generator=generator).contiguous(memory_format=torch.channels_last)
        timestep = torch.randint(1000, (batch,), generator=generator).float()
        context = torch.randn(batch, TOKENS, options["cross_attention_dim"], generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            output = predict(network, x, timestep, context)
        loss = F.mse_loss(output.float(), x)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.item(), "samples": batch}

    return {"train": step}


def ours() -> dict[str, Callable[[], dict[str, float]]]:
    """sfumato's UNet, with freed memory kept as `sfumato train` keeps it."""
    from sfumato.allocator import keep_freed_memory
    from sfumato.nn.unet import UNet, UNetConfig

    keep_freed_memory()
    return trainer(
        UNet(UNetConfig.from_json(network_config()[0])),
        lambda network, x, timestep, context: network(x, timestep, context),
    )


def diffusers(*, keep: bool) -> dict[str, Callable[[], dict[str, float]]]:
    """diffusers' UNet, as it comes or with freed memory kept."""
    from diffusers import UNet2DConditionModel

    if keep:
        from sfumato.allocator import keep_freed_memory

        keep_freed_memory()
    return trainer(
        UNet2DConditionModel.from_config(network_config()[0]),
        lambda network, x, timestep, context: network(x, timestep, context).sample,
    )


TRAINERS: dict[str, Callable[[], dict[str, Callable[[], dict[str, float]]]]] = {
    "train-sfumato": ours,
    "train-diffusers": lambda: diffusers(keep=False),
    "train-diffusers-kept": lambda: diffusers(keep=True),
}
