"""The LoRA recipe: what it trains, what it leaves, what it writes, and that others read it."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny_start as tiny
import torch
from safetensors import safe_open
from torch import Tensor

import sfumato
from sfumato.errors import ConfigError
from sfumato.text.encode import Conditioning
from sfumato.train import loop
from sfumato.train.config import read_config
from sfumato.train.lora import LoraTask
from sfumato.weights.lora import networks_of, read_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations among the reference implementations
    import diffusers

PROMPT = "a photograph of an astronaut"
THEIRS = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: tiny.start_model(kind, root) for kind in ("sd1", "sd2", "sdxl")}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.plain_pictures(tmp_path_factory.mktemp("pictures"))


def sections(model: Path, pictures: Path, **lora: Any) -> dict[str, dict[str, Any]]:
    return {"start": {"model": str(model)}, "data": {"source": str(pictures)}, "lora": {"rank": 4, **lora}}


BOTH = {"text": ["all"], "unet": ["attention", {"pattern": "convolutions", "rank": 2, "alpha": 1.0}]}


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_an_interrupted_run_ends_with_the_bytes_of_one_that_was_not(
    models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str
) -> None:
    tiny.assert_interruption_changes_nothing("lora", tmp_path, sections(models[kind], pictures, **BOTH))


def test_one_pass_and_several_give_the_same_gradients(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    tiny.assert_passes_change_nothing("lora", tmp_path, sections(models["sd1"], pictures, **BOTH))


def test_the_model_itself_is_not_touched(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    settings = sections(models["sd1"], pictures, **BOTH)
    settings["run"] = {**tiny.RUN, "output": str(tmp_path / "run"), "steps": 2}
    (tmp_path / "run.toml").write_text(
        tiny.toml({**settings, "data": {"size": 16, "caption": PROMPT, **settings["data"]}})
    )
    config = read_config(tmp_path / "run.toml")
    task = LoraTask(config)
    frozen = {**networks_of(task.model), "vae": task.base.autoencoder}
    before = {name: {k: v.clone() for k, v in each.state_dict().items()} for name, each in frozen.items()}
    loop.run(task, config)
    assert all(adapter.up.any() for adapters in task.adapters.values() for _, adapter in adapters.items())
    for name, network in frozen.items():
        assert all(torch.equal(value, before[name][key]) for key, value in network.state_dict().items())
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_network_may_have_a_rate_of_its_own(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    given = sections(models["sd1"], pictures, text=["all"], unet=["attention"])
    given |= {"run": {"steps": 1}, "optimizer": {"rate": 1e-3, "rates": {"text_encoder": 2e-5}}}
    tiny.train("lora", tmp_path / "run", given)
    found = read_for(sfumato.load(models["sd1"]), tmp_path / "run" / "export")
    for network, rate in (("unet", 1e-3), ("text_encoder", 2e-5)):
        largest = max(float(adapter.up.abs().max()) for _, adapter in found[network].items())
        assert largest == pytest.approx(rate, rel=1e-2)  # Adam's first step is the rate; `up` begins at zero
    with pytest.raises(ConfigError, match="names 'text'; this run trains unet, text_encoder"):
        tiny.train("lora", tmp_path / "wrong", {**given, "optimizer": {"rates": {"text": 1e-5}}})


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_every_layer_that_matters_and_no_other_is_trained(
    models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str
) -> None:
    tiny.train("lora", tmp_path / "run", sections(models[kind], pictures, text=["all"], unet=["transformers"]))
    model = sfumato.load(models[kind])
    found = read_for(model, tmp_path / "run" / "export")
    assert set(found) == set(networks_of(model))
    assert all(bool(adapter.up.any()) for adapters in found.values() for _, adapter in adapters.items())
    layers = {path.split(".")[3] for path in found["text_encoder"].paths}
    every = {str(layer) for layer in range(model.text.encoders[0].config.num_hidden_layers)}
    assert layers == (every - {max(every)} if kind == "sdxl" else every)  # SDXL never reads the first one's last layer


def test_ranks_and_alphas_are_those_that_were_asked_for(
    models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    unet = [{"pattern": "*.attn2.to_[kv]", "rank": 2, "alpha": 1.0}, "attention"]
    asked = sections(models["sd1"], pictures, unet=unet, alpha=8.0, precision="fp16")
    tiny.train("lora", tmp_path / "run", {**asked, "run": {"steps": 1}})
    found = read_for(sfumato.load(models["sd1"]), tmp_path / "run" / "export")["unet"]
    for path, adapter in found.items():
        keys = path.endswith(("attn2.to_k", "attn2.to_v"))
        assert (adapter.rank, adapter.alpha) == ((2, 1.0) if keys else (4, 8.0))
        assert adapter.down.dtype == torch.float16
    with safe_open(tmp_path / "run" / "export" / "lora.safetensors", "pt") as file:
        told = file.metadata()
    assert told["ss_network_module"] == "networks.lora"
    assert told["ss_resolution"] == "(16, 16)"
    assert json.loads(told["sfumato_base"])["hashes"] == sfumato.load(models["sd1"]).hashes
    assert str(tmp_path) not in json.dumps(told)


def answer(model: sfumato.Model, words: str = PROMPT) -> Tensor:
    """What the model takes noise for under these words, in the middle of the schedule."""
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    sigma = model.schedule.sigmas[600]
    told: Conditioning = model.text.encode(words)
    with torch.no_grad():
        return model.denoiser()(noise * sigma, sigma, told)


def test_a_lora_of_one_colour_draws_towards_it(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    run = {"steps": 60, "batch": 4, "microbatch": 4}
    asked = sections(models["sd1"], pictures, unet=["transformers", "convolutions"])
    settings = {**asked, "run": run, "optimizer": {"rate": 1e-2}}
    tiny.train("lora", tmp_path / "run", settings)
    found = tiny.losses(tmp_path / "run")
    assert sum(found[-10:]) < 0.7 * sum(found[:10])
    model = sfumato.load(models["sd1"])
    lora = sfumato.Lora(str(tmp_path / "run" / "export"))
    task = model.autoencoder
    pixels = torch.tensor(tiny.RED).view(1, 3, 1, 1).expand(1, 3, 16, 16) / 127.5 - 1
    with torch.no_grad():
        goal = task.encode(pixels).mean * model.scaling_factor
    far, half, near = (
        float((answer(sfumato.load(models["sd1"], loras=[sfumato.Lora(lora.name, weight)])) - goal).norm())
        for weight in (0.0, 0.5, 1.0)
    )
    assert near < half < far
    assert near < 0.7 * far


@THEIRS
@pytest.mark.parametrize(
    ("kind", "dialect"), [("sd1", "kohya"), ("sd1", "diffusers"), ("sd1", "peft"), ("sdxl", "kohya"), ("sdxl", "peft")]
)
def test_diffusers_hears_the_same_from_what_was_trained_here(
    models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str, dialect: str
) -> None:
    settings = sections(models[kind], pictures, dialect=dialect, alpha=2.0 if dialect != "diffusers" else 4.0)
    tiny.train("lora", tmp_path / "run", {**settings, "optimizer": {"rate": 0.03}})
    classes = {"sd1": diffusers.StableDiffusionPipeline, "sdxl": diffusers.StableDiffusionXLPipeline}
    theirs = classes[kind].from_pretrained(models[kind])
    [file] = (tmp_path / "run" / "export").iterdir()
    config = theirs.unet.config
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    context = torch.randn(1, 5, config.cross_attention_dim, generator=torch.Generator().manual_seed(6))
    pooled = size = None
    added: dict[str, Any] = {}
    if kind == "sdxl":
        pooled, size = torch.ones(1, 48), torch.tensor([[16.0, 16, 0, 0, 16, 16]])
        added = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": size}}
    ours = sfumato.load(models[kind], loras=[sfumato.Lora(str(file))])
    with torch.no_grad():
        before = theirs.unet(x, 501, context, **added).sample
        theirs.load_lora_weights(str(file))
        after = theirs.unet(x, 501, context, **added).sample
        mine = ours.unet(x, torch.tensor([501.0]), context, pooled, size)
    assert float((after - before).norm() / before.norm()) > 1e-2
    assert float((mine - after).norm() / after.norm()) < 1e-5


def test_a_lora_is_trained_further_from_where_it_was_left(
    models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    tiny.train("lora", tmp_path / "one", sections(models["sd1"], pictures, **BOTH))
    export = tmp_path / "one" / "export"
    again = {**sections(models["sd1"], pictures), "start": {"model": str(models["sd1"]), "lora": str(export)}}
    del again["lora"]
    tiny.train("lora", tmp_path / "two", {**again, "optimizer": {"rate": 1e-9}})
    model = sfumato.load(models["sd1"])
    first, second = (read_for(model, tmp_path / name / "export") for name in ("one", "two"))
    for network, changes in first.items():
        further = second[network].low_rank()
        for path, adapter in changes.low_rank().items():
            torch.testing.assert_close(further[path].up, adapter.up, atol=1e-6, rtol=0)
            assert (further[path].rank, further[path].alpha) == (adapter.rank, adapter.alpha)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lora": {"unet": ["atention"]}}, r"lora\.unet is of attention, transformers, convolutions.*'atention'"),
        ({"lora": {"unet": ["*.nothing.*"]}}, r"'\*\.nothing\.\*'"),
        ({"lora": {"text": ["unet"]}}, r"lora\.text is of attention, perceptrons, all"),
        ({"lora": {"rank": -1}}, r"rank -1"),
        ({"lora": {"unet": [{"pattern": "attention", "rnk": 2}]}}, r"lora\.unet: unknown key 'rnk'"),
        ({"lora": {"dialect": "lycoris"}}, r"lora\.dialect is one of kohya, diffusers, peft; found 'lycoris'"),
        ({"lora": {"precision": "int8"}}, r"lora\.precision is one of"),
        ({"lora": {"unet": []}}, r"both empty"),
        ({"start": {}}, r"start\.model"),
        ({"start": {"lora": "x"}}, r"leave lora\.rank out"),
        ({"inversion": {"token": "x"}}, r"\[inversion\] is for inversion, not for lora"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    models: dict[str, Path], pictures: Path, tmp_path: Path, wrong: dict[str, dict[str, Any]], message: str
) -> None:
    given = sections(models["sd1"], pictures)
    for section, values in wrong.items():
        given[section] = {**(given.get(section) or {}), **values} if values else {}
    with pytest.raises(ConfigError, match=message):
        tiny.train("lora", tmp_path / "run", given)
    assert not (tmp_path / "run").exists()
