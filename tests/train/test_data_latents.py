"""Latents of a set: repeats are encoded once, a set that changed is encoded anew, one that varies is refused."""

from pathlib import Path

import pytest
import torch
from set_maker import BLUE, GREEN, RED, opened, picture

from sfumato.errors import ConfigError
from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig
from sfumato.train.config import DataConfig, RunConfig, TrainConfig
from sfumato.train.latents import Latents, cached_latents, refuse_varying
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


def drawn(latents: Latents, noise: float, *, mirrored: bool = False) -> torch.Tensor:
    """Samples 0 to 4, divided by the scaling factor."""
    return latents.draw(range(5), torch.tensor(noise), torch.full((5,), mirrored)) / latents.scale


def means(latents: Latents) -> torch.Tensor:
    return drawn(latents, 0.0)


def test_repeats_are_encoded_once_and_stand_where_they_belong(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    picture(folder / "3_a/a.png", RED)
    picture(folder / "2_b/b.png", GREEN)
    samples = opened(folder, size=16)
    cpu = torch.device("cpu")
    latents = cached_latents(autoencoder(), samples, 5, config(tmp_path), cpu)
    mean, std = means(latents), drawn(latents, 1.0) - means(latents)
    with torch.inference_mode():
        each = autoencoder().encode(samples.pictures(range(5))).mean
    assert torch.allclose(mean, each, atol=1e-3)  # of float16, and batches of another size
    assert bool((std > 0).all())
    assert [torch.equal(mean[0], mean[at]) for at in range(5)] == [True, True, False, False, False]
    both = cached_latents(autoencoder(), samples, 5, config(tmp_path / "mirrored", mirror=True), cpu)
    assert torch.allclose(means(both), mean, atol=1e-3)
    mirrored = drawn(both, 0.0, mirrored=True)
    assert torch.equal(mirrored[4], mirrored[3])
    again = cached_latents(autoencoder(), samples, 5, config(tmp_path), cpu)
    assert torch.equal(means(again), mean)
    assert len(list((tmp_path / "run").iterdir())) == 1
    picture(folder / "2_b/b.png", BLUE)
    changed = cached_latents(autoencoder(), opened(folder, size=16), 5, config(tmp_path), cpu)
    assert not torch.equal(means(changed), mean)
    assert len(list((tmp_path / "run").iterdir())) == 2


def test_samples_that_are_cut_anew_each_time_have_no_latents_to_keep(tmp_path: Path) -> None:
    picture(tmp_path / "a/a.png")
    text = f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{tmp_path}/a"\nclass_tokens = "a"\nrandom_crop = true\n'
    (tmp_path / "set.toml").write_text(text)
    with pytest.raises(ConfigError, match="random_crop cuts pictures anew each time"):
        refuse_varying(opened(tmp_path / "set.toml"))
