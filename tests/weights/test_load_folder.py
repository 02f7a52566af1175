"""Folders that diffusers saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from weights_pipelines import KINDS

from sfumato.model import Model
from sfumato.weights.load import load

Pipelines = Callable[[str], tuple[Any, Path]]
SAME = {"rtol": 0.0, "atol": 1e-5}  # of values near 1: float32 sums in another order


def unet_outputs(model: Model, pipeline: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The same question to our UNet and to diffusers'."""
    noise = torch.Generator().manual_seed(7)
    config = model.unet.config
    x = torch.randn(2, config.in_channels, 8, 8, generator=noise)
    context = torch.randn(2, 5, config.cross_attention_dim, generator=noise)
    timestep = torch.tensor([3.0, 700.0])
    added: dict[str, torch.Tensor] = {}
    if config.addition_embed_type:
        ids = 5 if len(model.text.encoders) == 1 else 6
        added = {"text_embeds": torch.randn(2, 48, generator=noise), "time_ids": torch.full((2, ids), 64.0)}
    ours = model.unet(x, timestep, context, added.get("text_embeds"), added.get("time_ids"))
    theirs = pipeline.unet(x, timestep, context, added_cond_kwargs=added).sample
    return ours, theirs


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_a_folder_saved_by_diffusers_answer_as_diffusers_does(pipelines: Pipelines, kind: str) -> None:
    pipeline, folder = pipelines(kind)
    model = load(folder)
    ours, theirs = unet_outputs(model, pipeline)
    torch.testing.assert_close(ours, theirs, **SAME)
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    posterior = pipeline.vae.encode(pixels).latent_dist
    torch.testing.assert_close(model.autoencoder.encode(pixels).mean, posterior.mean, **SAME)
    decoded = pipeline.vae.decode(posterior.mean).sample
    torch.testing.assert_close(model.autoencoder.decode(posterior.mean), decoded, **SAME)
