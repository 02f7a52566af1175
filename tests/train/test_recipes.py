"""The recipes: what they minimise, and that their parts make a model that draws."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import sfumato
from sfumato.errors import ConfigError, ModelFileError, OutputError
from sfumato.scenes.captions import caption
from sfumato.scenes.scene import scene
from sfumato.scenes.vocabulary import COLOURS, KINDS
from sfumato.train import run_training
from sfumato.train.autoencoder import AutoencoderTask, busier_crops
from sfumato.train.config import DataConfig, RunConfig, TrainConfig
from sfumato.train.objective import SCHEDULER, DenoisingLoss, Objective
from sfumato.train.text import ClaimHeads, contrastive
from sfumato.weights.assemble import assemble

SIZE = 32
AUTOENCODER = """
[network]
block_out_channels = [16, 16, 16, 16]
down_block_types = ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"]
up_block_types = ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]
layers_per_block = 1
norm_num_groups = 8
"""
TEXT = """
[network]
vocab_size = 600
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 77
projection_dim = 32
"""
UNET = """
[network]
block_out_channels = [32, 32]
down_block_types = ["DownBlock2D", "CrossAttnDownBlock2D"]
up_block_types = ["CrossAttnUpBlock2D", "UpBlock2D"]
layers_per_block = 1
cross_attention_dim = 32
attention_head_dim = 2
norm_num_groups = 16
"""


def trained(
    folder: Path, kind: str, network: str, data: str, loss: str = "", start: str = "", precision: str = "bf16"
) -> Path:
    """The export of two steps of a recipe."""
    run = f'[run]\noutput = "{folder / kind}"\nsteps = 2\nbatch = 4\nprecision = "{precision}"\nlog_every = 1\n'
    path = folder / f"{kind}.toml"
    path.write_text(run + f"[data]\nsize = {SIZE}\n{data}\n" + network + loss + start)
    assert run_training(kind, path) == 2
    return folder / kind / "export"


def train_all(folder: Path, data: str, claims: float, layout: float) -> list[Path]:
    text_loss = f"[loss]\nclaims = {claims}\ncontrastive = {1 - claims}\n"
    autoencoder = trained(folder, "autoencoder", AUTOENCODER, data)
    text = trained(folder, "text", TEXT, data, text_loss)
    start = f'[start]\nautoencoder = "{autoencoder}"\ntext = "{text}"\n'
    unet = trained(folder, "unet", UNET, data, f"[loss]\nlayout = {layout}\n", start)
    return [autoencoder, text, unet]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return train_all(tmp_path_factory.mktemp("world"), "pool = 6\n", claims=1.0, layout=0.5)


def test_parts_trained_on_the_world_make_a_model_that_draws(world: list[Path], tmp_path: Path) -> None:
    folder = assemble(world, tmp_path / "model", title="tiny", size=SIZE, steps=2, guidance=2.0)
    model = sfumato.load(folder)
    assert model.prediction == "v_prediction"
    assert model.family.preview is not None
    assert len(model.family.preview) == 5
    [picture] = sfumato.generate(model, sfumato.Request(prompt="a red house", seed=1))
    assert picture.size == (SIZE, SIZE)


def test_the_parts_of_a_model_are_needed_once_each(world: list[Path], tmp_path: Path) -> None:
    say = {"title": "t", "size": SIZE, "steps": 2, "guidance": 2.0}
    with pytest.raises(ModelFileError, match="has vae; a model needs"):
        assemble(world[1:], tmp_path / "model", **say)  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="Two folders have a vae"):
        assemble([*world, world[0]], tmp_path / "model", **say)  # type: ignore[arg-type]
    (tmp_path / "model").mkdir()
    with pytest.raises(OutputError):
        assemble(world, tmp_path / "model", **say)  # type: ignore[arg-type]


def test_a_folder_of_pictures_trains_all_three(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        Image.new("RGB", (40, 30), (60 * number, 90, 200)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text(f"field number {number}")
    exports = train_all(tmp_path, f'source = "{pictures}"\n', claims=0.0, layout=0.0)
    assert (exports[2] / "unet" / "diffusion_pytorch_model.safetensors").is_file()
    for recipe in ("autoencoder", "text", "unet"):
        lines = (tmp_path / recipe / "log.jsonl").read_text().splitlines()
        assert all(math.isfinite(json.loads(line)["loss"]) for line in lines)


def assert_same(before: Path, after: Path) -> None:
    found = load_file(after)
    for name, weights in load_file(before).items():
        torch.testing.assert_close(found[name], weights, atol=1e-6, rtol=0)


def assert_no_network_beside(kind: str, network: str, start: str, folder: Path) -> None:
    """A run that starts from weights refuses a [network]."""
    folder.mkdir()
    with pytest.raises(ConfigError, match="leave it out"):
        trained(folder, kind, network, "pool = 6\n", "", start)


def test_a_text_encoder_is_trained_further_with_its_vocabulary(world: list[Path], tmp_path: Path) -> None:
    start, still = f'[start]\ntext = "{world[1]}"\n', "[optimizer]\nrate = 1e-9\nweight_decay = 0\n"
    export = trained(tmp_path, "text", "", "pool = 6\nnatural = 0.5\n", still, start)
    assert (export / "tokenizer" / "vocab.json").read_text() == (world[1] / "tokenizer" / "vocab.json").read_text()
    assert_same(world[1] / "text_encoder" / "model.safetensors", export / "text_encoder" / "model.safetensors")
    assert_no_network_beside("text", TEXT, start, tmp_path / "again")


def test_a_unet_is_trained_further_from_where_another_run_left_it(world: list[Path], tmp_path: Path) -> None:
    start = f'[start]\nautoencoder = "{world[0]}"\ntext = "{world[1]}"\nunet = "{world[2]}"\n'
    export = trained(tmp_path, "unet", "", "pool = 6\n", "[optimizer]\nrate = 1e-9\nweight_decay = 0\n", start)
    assert_same(*(folder / "unet" / "diffusion_pytorch_model.safetensors" for folder in (world[2], export)))
    assert_no_network_beside("unet", UNET, start, tmp_path / "again")


def test_latents_have_unit_deviation_after_the_exported_scale(world: list[Path]) -> None:
    model_config = json.loads((world[0] / "vae" / "config.json").read_text())
    data = DataConfig(size=SIZE, pool=6)
    config = TrainConfig(run=RunConfig(output="unused", steps=1, batch=1), data=data, network=model_config)
    task = AutoencoderTask(config)
    task.network.load_state_dict(load_file(world[0] / "vae" / "diffusion_pytorch_model.safetensors"))
    with torch.no_grad():
        latents = task.network.encode(task.samples.pictures(range(6))).mean
    assert float((latents * model_config["scaling_factor"]).std()) == pytest.approx(1.0, abs=1e-3)


def test_training_the_decoder_alone_leaves_the_latents_and_their_scale_as_they_were(
    world: list[Path], tmp_path: Path
) -> None:
    start = f'[start]\nautoencoder = "{world[0]}"\n'
    export = trained(tmp_path, "autoencoder", "", "pool = 6\nseed = 9\n", "[loss]\ndecoder_only = true\n", start)
    before, after = (load_file(f / "vae" / "diffusion_pytorch_model.safetensors") for f in (world[0], export))
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"decoder", "post_quant_conv"}
    scales = [json.loads((f / "vae" / "config.json").read_text())["scaling_factor"] for f in (world[0], export)]
    assert scales[0] == scales[1]


def test_an_autoencoder_is_trained_against_a_discriminator_and_by_features(tmp_path: Path) -> None:
    loss = "[loss]\nperceptual = 0.1\nadversarial = 0.5\nadversarial_start = 4\n"
    trained(tmp_path, "autoencoder", AUTOENCODER, "pool = 6\nvalidation = 2\n", loss)
    lines = [json.loads(line) for line in (tmp_path / "autoencoder" / "log.jsonl").read_text().splitlines()]
    assert "adaptive" not in lines[0]  # the first step is before its start
    assert lines[1]["adaptive"] > 0
    assert all(line["perceptual"] > 0 and math.isfinite(line["discriminator"]) for line in lines[:2])
    assert lines[2]["validation_psnr"] > 0


def test_what_the_world_alone_can_teach_is_refused_for_a_folder(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(picture)
    picture.with_suffix(".txt").write_text("a caption")
    with pytest.raises(ConfigError, match=r"loss\.claims needs data\.source = 'world'"):
        trained(tmp_path, "text", TEXT, f'source = "{tmp_path}"\n')
    with pytest.raises(ConfigError, match=r"loss\.layout needs data\.source = 'world'"):
        trained(tmp_path, "unet", UNET, f'source = "{tmp_path}"\n', "[loss]\nlayout = 1.0\n")
    with pytest.raises(ConfigError, match=r"data\.pool must be set"):
        trained(tmp_path, "unet", UNET, "")
    with pytest.raises(ConfigError, match=r"start\.autoencoder must name a folder"):
        trained(tmp_path, "unet", UNET, "pool = 2\n")
    with pytest.raises(ConfigError, match=r"loss\.decoder_only needs start\.autoencoder"):
        trained(tmp_path, "autoencoder", AUTOENCODER, "pool = 2\n", "[loss]\ndecoder_only = true\n")
    with pytest.raises(ConfigError, match=r"run\.precision is float32, bf16 or fp16, found 'fp8'"):
        trained(tmp_path, "autoencoder", AUTOENCODER, "pool = 2\n", precision="fp8")
    with pytest.raises(ConfigError, match="unknown key 'squarred'; did you mean 'squared'"):
        trained(tmp_path, "autoencoder", AUTOENCODER, "pool = 2\n", "[loss]\nsquarred = 1.0\n")


def test_the_busier_of_two_crops_is_kept() -> None:
    pixels = torch.zeros(1, 3, 8, 8)
    pixels[..., 4:] = torch.rand((3, 8, 4), generator=torch.Generator().manual_seed(0))
    kept = [busier_crops(pixels, 4, torch.Generator().manual_seed(seed)) for seed in range(40)]
    either = torch.stack([crop.var() for crop in kept])
    single = torch.stack([pixels[..., y : y + 4, x : x + 4].var() for y in range(5) for x in range(5)])
    assert either.mean() > single.mean()


def test_claims_are_numbered_as_the_heads_answer() -> None:
    drawn = scene(0, 3, counts=(0.0, 1.0))
    import numpy as np

    said = caption(drawn, np.random.default_rng(0), complete=True)
    targets = ClaimHeads(8).targets([said])[:, 0].tolist()
    assert targets[0] == 1 + list(KINDS).index(said.claims[0].kind)
    assert targets[5] == 1 + list(COLOURS).index(str(said.claims[1].colour))
    alone = ClaimHeads(8).targets([caption(scene(0, 1), np.random.default_rng(0))])[:, 0].tolist()
    assert alone[4:8] == [0, 0, 0, 0]


def test_the_contrastive_loss_of_matched_and_of_equal_embeddings() -> None:
    scale = torch.tensor(math.log(50.0))
    matched, right = contrastive(torch.eye(4), torch.eye(4), scale)
    assert float(matched) == pytest.approx(math.log(1 + 3 * math.exp(-50)), abs=1e-6)
    assert float(right) == 1.0
    equal, _ = contrastive(torch.ones(4, 2), torch.ones(4, 2), scale)
    assert float(equal) == pytest.approx(math.log(4), abs=1e-5)


@pytest.mark.parametrize(
    ("weighting", "prediction", "snr", "expected"),
    [
        ("uniform", "v_prediction", 9.0, 1.0),
        ("min_snr", "epsilon", 9.0, 5.0 / 9.0),  # Hang et al. 2023: min(SNR, gamma) / SNR for noise
        ("min_snr", "epsilon", 2.0, 1.0),
        ("min_snr", "v_prediction", 9.0, 5.0 / 10.0),  # and / (SNR + 1) for velocity
        ("min_snr", "sample", 9.0, 5.0),
        ("clipped", "v_prediction", 9.0, 6.0 / 10.0),
        ("clipped", "v_prediction", 2.0, 1.0),
        ("debiased", "epsilon", 4.0, 0.5),  # Yu et al. 2023: 1 / sqrt(SNR) for noise
        ("debiased", "v_prediction", 4.0, 0.2),
    ],
)
def test_weights_of_the_squared_error(weighting: str, prediction: str, snr: float, expected: float) -> None:
    objective = Objective(DenoisingLoss(weighting=weighting), prediction, SCHEDULER)
    assert float(objective.weight(torch.tensor([snr**-0.5]))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's compiler uses what PyTorch has deprecated
def test_a_compiled_run_learns_what_one_that_is_not_compiled_learns(world: list[Path], tmp_path: Path) -> None:
    lines, weights = [], []
    for compiled in ("false", "true"):
        folder = tmp_path / compiled
        run = f'output = "{folder}"\nsteps = 3\nbatch = 4\nlog_every = 1\ncompile = {compiled}\n'
        data = f"size = {SIZE}\npool = 6\nvalidation = 2\n"
        start = f'autoencoder = "{world[0]}"\ntext = "{world[1]}"\n'
        path = tmp_path / f"{compiled}.toml"
        path.write_text(f"[run]\n{run}[data]\n{data}[start]\n{start}{UNET}[loss]\nlayout = 0.3\n")
        assert run_training("unet", path) == 3
        lines.append([json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()])
        weights.append(load_file(folder / "export" / "unet" / "diffusion_pytorch_model.safetensors"))
    for one, two in zip(*lines, strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() & {"loss", "mse", "layout", "gradient", "validation_mse"}:
            assert two[name] == pytest.approx(one[name], rel=1e-3)
    assert weights[0].keys() == weights[1].keys()
