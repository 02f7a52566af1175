"""Latents of a set: repeats are encoded once, a set that changed is encoded anew, one that varies is refused."""

from pathlib import Path

import pytest
import torch
from set_maker import BLUE, GREEN, RED, opened, picture

from sfumato.errors import ConfigError
from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig
from sfumato.train.config import DataConfig, RunConfig, TrainConfig
from sfumato.train.latents import cached_latents
from sfumato.train.plan import seeded

NETWORK = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
}


def autoencoder() -> Autoencoder:
    with seeded(1):
        return Autoencoder(AutoencoderConfig.from_json(NETWORK)).eval()


def config(folder: Path, mirror: bool = False) -> TrainConfig:
    run = RunConfig(output=str(folder / "run"), steps=1, batch=1)
    return TrainConfig(run=run, data=DataConfig(source=str(folder), size=16, mirror=mirror))


def test_repeats_are_encoded_once_and_stand_where_they_belong(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    picture(folder / "3_a/a.png", RED)
    picture(folder / "2_b/b.png", GREEN)
    samples = opened(folder, size=16)
    cpu = torch.device("cpu")
    latents = cached_latents(autoencoder(), samples, 5, config(tmp_path), cpu)
    mean, std = latents.mean, latents.std
    with torch.inference_mode():
        each = autoencoder().encode(samples.pictures(range(5))).mean.half()
    assert torch.allclose(mean, each, atol=1e-3)  # of float16, and batches of another size
    assert std.shape == mean.shape == (5, 4, 8, 8)
    assert [torch.equal(mean[0], mean[at]) for at in range(5)] == [True, True, False, False, False]
    both = cached_latents(autoencoder(), samples, 5, config(tmp_path / "mirrored", mirror=True), cpu)
    assert torch.allclose(both.mean[:5], mean, atol=1e-3)
    assert both.mean.shape[0] == 10
    assert torch.equal(both.mean[9], both.mean[8])
    again = cached_latents(autoencoder(), samples, 5, config(tmp_path), cpu)
    assert torch.equal(again.mean, mean)
    assert len(list((tmp_path / "run").iterdir())) == 1
    picture(folder / "2_b/b.png", BLUE)
    changed = cached_latents(autoencoder(), opened(folder, size=16), 5, config(tmp_path), cpu)
    assert not torch.equal(changed.mean, mean)
    assert len(list((tmp_path / "run").iterdir())) == 2


def test_samples_that_are_cut_anew_each_time_have_no_latents_to_keep(tmp_path: Path) -> None:
    picture(tmp_path / "a/a.png")
    text = f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{tmp_path}/a"\nclass_tokens = "a"\nrandom_crop = true\n'
    (tmp_path / "set.toml").write_text(text)
    with pytest.raises(ConfigError, match="random_crop cuts pictures anew each time"):
        cached_latents(autoencoder(), opened(tmp_path / "set.toml"), 1, config(tmp_path), torch.device("cpu"))
