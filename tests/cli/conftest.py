"""The command line as a user has it: a process of its own, in an empty folder, with a tiny random model at hand."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_run import SIDE, Run
from PIL import Image

from sfumato.diffusion.presets import from_scheduler_config
from sfumato.diffusion.schedule import from_scheduler_config as schedule_from_config
from sfumato.model import Model
from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig
from sfumato.nn.clip import TextEncoder, TextEncoderConfig
from sfumato.nn.unet import UNet, UNetConfig
from sfumato.text.clip_vocabulary import clip_tokenizer
from sfumato.text.encode import SD1, TextStack
from sfumato.weights.families import SD1_SCHEDULER, SD15
from sfumato.weights.save import save_folder

UNET = {
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "sample_size": SIDE // 8,
}
AUTOENCODER = {
    "block_out_channels": [8, 8, 16, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "sample_size": SIDE,
}
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny SD 1.x with random weights: pictures without sense, but all the way through."""
    scheduler = dict(SD1_SCHEDULER)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        networks = UNet(UNetConfig.from_json(UNET)), Autoencoder(AutoencoderConfig.from_json(AUTOENCODER))
        text = TextEncoder(TextEncoderConfig.from_json(TEXT))
    tiny = Model(
        name="tiny",
        source=Path("tiny"),
        family=replace(SD15, size=SIDE, steps=3),
        unet=networks[0].eval(),
        autoencoder=networks[1].eval(),
        text=TextStack((clip_tokenizer(),), (text.eval(),), SD1),
        schedule=schedule_from_config(scheduler),
        sampling=from_scheduler_config(scheduler),
        prediction="epsilon",
        scheduler=scheduler,
    )
    return save_folder(tiny, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment with an empty home, so that nothing of this machine's is seen or changed."""
    hidden = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "FORCE_COLOR", "PYTHONWARNINGS")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, "SFUMATO_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The folder that commands run in."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def sfumato(here: Path, environment: dict[str, str]) -> Run:
    """`sfumato(*words)` runs a command line and returns its exit code, stdout and stderr."""

    def run(*words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sfumato", *map(str, words)]
        return subprocess.run(
            command, cwd=here, env=environment, input=stdin, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def photo(here: Path) -> Path:
    """A picture of smooth colours, as large as the tiny model's."""
    row = np.linspace(0, 255, SIDE, dtype=np.uint8)
    pixels = np.stack(
        [np.tile(row, (SIDE, 1)), np.tile(row[:, None], (1, SIDE)), np.full((SIDE, SIDE), 90, np.uint8)], -1
    )
    Image.fromarray(pixels).save(here / "photo.png")
    return here / "photo.png"


@pytest.fixture
def mask(here: Path) -> Path:
    """A mask as large as the photo: the right half is repainted."""
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[:, SIDE // 2 :] = 255
    Image.fromarray(pixels).save(here / "mask.png")
    return here / "mask.png"
