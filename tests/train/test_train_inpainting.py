"""The inpainting recipe: where it starts, what its network sees, and that others load what it writes."""

import shutil
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_start as tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import sfumato
from sfumato import operations as op
from sfumato.errors import ConfigError, WeightsError
from sfumato.job import prepare
from sfumato.nn.widened import widened
from sfumato.scenes.render import render
from sfumato.scenes.vocabulary import KINDS
from sfumato.train import loop
from sfumato.train.config import read_config
from sfumato.train.inpainting import InpaintingTask
from sfumato.train.masks import MASKS, random_mask
from sfumato.train.plan import passes

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations among the reference implementations
    import diffusers

SIZE = tiny.SIZE
COLOURS = {"a": (220, 30, 20), "b": (20, 160, 40), "c": (30, 60, 200)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: tiny.start_model(kind, root) for kind in ("sd1", "sdxl")}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.plain_pictures(tmp_path_factory.mktemp("pictures"), COLOURS)


def sections(model: Path, pictures: Path, **inpainting: Any) -> dict[str, dict[str, Any]]:
    given = {"start": {"model": str(model)}, "data": {"source": str(pictures)}, "inpainting": inpainting}
    return {**given, "loss": {"drop": 0.3}}


def task_of(model: Path, pictures: Path, folder: Path, **data: Any) -> InpaintingTask:
    given = {
        **sections(model, pictures),
        "run": {"output": str(folder / "run"), "steps": 1, "batch": 4, "microbatch": 1},
    }
    given["data"] = {"source": str(pictures), "size": SIZE, "caption": "an astronaut", **data}
    (folder / "task.toml").write_text(tiny.toml(given))
    return InpaintingTask(read_config(folder / "task.toml"))


def test_a_mask_depends_on_its_number_alone_and_covers_something() -> None:
    masks = {(name, n): random_mask(1, n, (32, 32), lambda u, name=name: name) for name in MASKS for n in range(40)}
    for (name, number), mask in masks.items():
        assert mask.shape == (1, 32, 32)
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        assert mask.any()
        assert torch.equal(mask, random_mask(1, number, (32, 32), lambda u, name=name: name))
        larger = random_mask(1, number, (128, 128), lambda u, name=name: name)
        assert float((torch.nn.functional.avg_pool2d(larger, 4) - mask).abs().mean()) < 0.08  # the same at every size
    for name in MASKS:
        shares = [float(masks[name, number].mean()) for number in range(40)]
        assert len(set(shares)) > 30
        assert 0.1 < sum(shares) / 40 < 0.7


def test_the_shares_of_the_masks_are_those_that_were_asked_for(
    models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    task = task_of(models["sd1"], pictures, tmp_path)
    found = Counter(task.shape(at / 1000) for at in range(1000))
    assert found == {"": 250, "rectangles": 250, "strokes": 250, "ellipse": 250}


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_the_widened_network_predicts_what_it_did(models: dict[str, Path], kind: str) -> None:
    model = sfumato.load(models[kind])
    wide = widened(model.unet)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    around = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(2))
    context = torch.randn(2, 5, model.unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(3))
    added = (torch.ones(2, 48), torch.tensor([[16.0, 16, 0, 0, 16, 16]] * 2)) if kind == "sdxl" else ()
    with torch.no_grad():
        before = model.unet(x, torch.tensor([300.0, 800.0]), context, *added)
        after = wide(torch.cat([x, around], 1), torch.tensor([300.0, 800.0]), context, *added)
    assert float((after - before).norm() / before.norm()) < 1e-6  # zeros added in another order
    assert model.unet.config.in_channels == model.unet.conv_in.in_channels == 4
    shared = dict(model.unet.named_parameters())
    assert all(p is shared[name] for name, p in wide.named_parameters() if not name.startswith("conv_in"))


def test_the_network_sees_what_it_sees_in_inference(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    task = task_of(models["sd1"], pictures, tmp_path)
    assert task.base.model is not None
    found = task._seen([0, 1, 2], task._masked([0, 1, 2], [5, 6, 7], torch.zeros(())), None)
    for at, name in enumerate(sorted(COLOURS)):
        mask = random_mask(task.config.run.seed, 5 + at, (SIZE, SIZE), task.shape)
        grey = Image.fromarray((mask[0] * 255).byte().numpy())
        picture = Image.new("RGB", (SIZE, SIZE), COLOURS[name])
        job = prepare(task.base.model, sfumato.Request(width=SIZE, height=SIZE), image=picture, mask=grey)
        assert torch.equal(found[at, :1], op.nearest_mask(job.weights, job.canvas.cells)[0])
        torch.testing.assert_close(found[at, 1:], job.masked_posterior.mean[0], atol=1e-6, rtol=1e-5)


def test_a_mirrored_sample_sees_its_own_surroundings(models: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    halves = Image.new("RGB", (SIZE, SIZE), (255, 0, 0))
    halves.paste((0, 0, 255), (0, 0, SIZE // 2, SIZE))
    halves.save(folder / "a.png")
    task = task_of(models["sd1"], folder, tmp_path, mirror=True)
    from sfumato.train.plan import passes

    [part] = passes(task.config.run, 3, 12)
    batch = task.draw(part)
    assert batch.mirrored is not None
    assert 0 < int(batch.mirrored.sum()) < 4
    plain, turned = (
        task.base.autoencoder.encode(p).mean for p in (task.samples.pictures([0]), task.samples.pictures([0]).flip(-1))
    )
    for at, mirrored in enumerate(batch.mirrored.tolist()):
        clean = batch.clean[at] / task.base.autoencoder.config.scaling_factor
        near, far = (turned, plain) if mirrored else (plain, turned)
        assert (clean - near[0]).norm() < (clean - far[0]).norm() + 1e-3
    flipped = task.extra_input(batch)
    batch.mirrored[:] = ~batch.mirrored
    changed = (flipped != task.extra_input(batch)).flatten(1).any(1)
    masks = flipped[:, 0].flatten(1).all(1)
    assert torch.equal(changed, ~masks)  # a picture that is masked all over has nothing to turn


def test_an_interrupted_run_ends_with_the_bytes_of_one_that_was_not(
    models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    tiny.assert_interruption_changes_nothing("inpainting", tmp_path, sections(models["sd1"], pictures))


def test_one_pass_and_several_give_the_same_gradients(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    tiny.assert_passes_change_nothing("inpainting", tmp_path, sections(models["sd1"], pictures))


def test_it_learns_from_what_is_around_and_leaves_the_rest_of_the_model(
    models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    given = sections(models["sd1"], pictures, whole=0.1)
    run = {**tiny.RUN, "output": str(tmp_path / "run"), "steps": 60, "microbatch": 4}
    given |= {"run": run, "optimizer": {**tiny.OPTIMIZER, "rate": 3e-3}}
    given["data"] = {"source": str(pictures), "size": SIZE, "caption": "an astronaut"}
    (tmp_path / "run.toml").write_text(tiny.toml(given))
    config = read_config(tmp_path / "run.toml")
    task = InpaintingTask(config)
    frozen = {"vae": task.base.autoencoder, "text": task.base.text.encoders[0]}
    before = {name: {k: v.clone() for k, v in each.state_dict().items()} for name, each in frozen.items()}
    loop.run(task, config)
    for name, network in frozen.items():
        assert all(torch.equal(value, before[name][key]) for key, value in network.state_dict().items())
    found = tiny.losses(tmp_path / "run")
    assert sum(found[-10:]) < 0.5 * sum(found[:10])
    model = sfumato.load(tmp_path / "run" / "export")
    assert model.family.inpainting
    assert bool(model.unet.conv_in.weight[:, 4:].any())
    grey = Image.new("L", (SIZE, SIZE), 0)
    grey.paste(255, (4, 4, 12, 12))
    request = sfumato.Request(prompt="an astronaut", seed=1, steps=4, guidance=1.0, width=SIZE, height=SIZE)
    drawn = [
        sfumato.generate(model, request, image=Image.new("RGB", (SIZE, SIZE), colour), mask=grey)[0]
        for colour in COLOURS.values()
    ]
    assert len({picture.crop((4, 4, 12, 12)).tobytes() for picture in drawn}) == 3  # what is around matters


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_diffusers_inpaints_with_the_export_as_we_do(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    tiny.train("inpainting", tmp_path / "run", sections(models["sd1"], pictures))
    export = tmp_path / "run" / "export"
    theirs = diffusers.StableDiffusionInpaintPipeline.from_pretrained(export)
    assert theirs.unet.config.in_channels == 9
    ours = sfumato.load(export)
    x = torch.randn(1, 9, 8, 8, generator=torch.Generator().manual_seed(5))
    context = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        expected = theirs.unet(x, 501, context).sample
        found = ours.unet(x, torch.tensor([501.0]), context)
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    theirs.set_progress_bar_config(disable=True)
    picture, grey = Image.new("RGB", (SIZE, SIZE), (9, 90, 200)), Image.new("L", (SIZE, SIZE), 255)
    made = theirs("an astronaut", picture, grey, height=SIZE, width=SIZE, num_inference_steps=2, output_type="np")
    assert made.images.shape == (1, SIZE, SIZE, 3)


def test_a_model_that_inpaints_is_trained_further(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    tiny.train("inpainting", tmp_path / "one", {**sections(models["sd1"], pictures), "run": {"steps": 1}})
    export = tmp_path / "one" / "export"
    again = {**sections(export, pictures), "run": {"steps": 1}, "optimizer": {"rate": 1e-9}}
    tiny.train("inpainting", tmp_path / "two", again)
    first, second = (sfumato.load(folder).unet.state_dict() for folder in (export, tmp_path / "two" / "export"))
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"inpainting": {"whole": 1.5}}, r"inpainting\.whole is 1\.5; it is a share from 0 to 1"),
        ({"inpainting": {"shapes": ["circle"]}}, r"inpainting\.shapes are of rectangles, strokes, ellipse; .*circle"),
        ({"inpainting": {"shapes": []}}, r"inpainting\.shapes"),
        ({"start": {}}, r"start\.model"),
        ({"prior": {"prompt": "a dog"}}, r"\[prior\] is for lora and unet, not for inpainting"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    models: dict[str, Path], pictures: Path, tmp_path: Path, wrong: dict[str, dict[str, Any]], message: str
) -> None:
    given = {**sections(models["sd1"], pictures), **wrong}
    with pytest.raises(ConfigError, match=message):
        tiny.train("inpainting", tmp_path / "run", given)
    assert not (tmp_path / "run").exists()


def world_of(start: Path, folder: Path, **inpainting: Any) -> InpaintingTask:
    given = {
        "run": {"output": str(folder / "run"), "steps": 1, "batch": 8},
        "data": {"size": 32, "pool": 12, "counts": [0.5, 0.5]},
        "start": {"model": str(start)},
        "inpainting": inpainting,
    }
    (folder / "world.toml").write_text(tiny.toml(given))
    return InpaintingTask(read_config(folder / "world.toml"))


def test_a_thing_that_is_masked_is_told_alone_and_hidden_whole(models: dict[str, Path], tmp_path: Path) -> None:
    task = world_of(models["sd1"], tmp_path, things=1.0)
    [part] = passes(task.config.run, 0, 0)
    batch = task.draw(part)
    said = task.captions(batch)
    assert batch.said is not None
    assert [batch.said.texts[row] for row in batch.said.rows] == [
        "" if d else s for d, s in zip(batch.dropped, said, strict=True)
    ]
    assert task.world is not None
    for at, (scene, text) in enumerate(zip(task.world.scenes(batch.indices), said, strict=True)):
        mask = batch.shown.masks[at, 0]
        hidden = []
        for thing in scene.things:
            alone = replace(scene, things=(thing,))
            shape = (render([alone], 32) - render([replace(scene, things=())], 32)).abs().amax(1)[0] > 0.5
            hidden.append((thing, bool((shape & ~mask).sum() <= 0.1 * shape.sum())))
        told = [thing for thing, covered in hidden if covered and any(word in text for word in KINDS[thing.kind])]
        assert told, (text, hidden)
        assert text.count(" and ") == 0


def test_things_are_masked_as_often_as_asked(models: dict[str, Path], tmp_path: Path) -> None:
    task = world_of(models["sd1"], tmp_path, things=0.25, whole=1.0)
    alone = [task._alone(0, number) is not None for number in range(400)]
    assert 0.18 < sum(alone) / 400 < 0.32
    [part] = passes(task.config.run, 0, 0)
    batch = task.draw(part)
    whole = [bool(mask.all()) for mask in batch.shown.masks]
    told = [task._alone(index, number) is None for index, number in zip(batch.indices, part.numbers, strict=True)]
    assert whole == told


def test_kept_pictures_train_as_those_that_are_read_each_time(
    models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    for keep in (False, True):
        given = sections(models["sd1"], pictures)
        given["data"] |= {"keep": keep}
        assert tiny.train("inpainting", tmp_path / str(keep), given) == 4
    # PNGs of 8 bits, cut but not made smaller: nothing is rounded
    found, expected = tiny.state(tmp_path / "True"), tiny.state(tmp_path / "False")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_companion_is_trained_resumed_and_drawn_with(models: dict[str, Path], tmp_path: Path) -> None:
    start = tmp_path / "model"
    shutil.copytree(models["sd1"], start)
    pictures = tiny.plain_pictures(tmp_path / "pictures", COLOURS)
    given = {**sections(start, pictures), "lora": {"rank": 2, "unet": ["*"]}}
    tiny.assert_interruption_changes_nothing("inpainting", tmp_path, given)
    made = tmp_path / "whole" / "export" / "inpainting.safetensors"
    plain = sfumato.load(start)
    shutil.copy(made, start)
    model = sfumato.load(start)
    picture = Image.new("RGB", (SIZE, SIZE), COLOURS["a"])
    mask = Image.new("L", (SIZE, SIZE), 0)
    mask.paste(255, (4, 4, 12, 12))
    request = sfumato.Request(prompt="an astronaut", seed=3, steps=2, width=SIZE, height=SIZE)
    one, other = (sfumato.generate(each, request, image=picture, mask=mask)[0] for each in (plain, model))
    assert one.tobytes() != other.tobytes()
    trained = tiny.state(tmp_path / "whole")
    wide = model.inpainter
    assert wide is not None
    written = load_file(made)
    assert torch.equal(written["conv_in.weight"], trained["average/conv_in/weight"].half())
    assert torch.equal(wide.unet.conv_in.weight, written["conv_in.weight"].float())


def test_a_companion_is_trained_further_beside_another_unet(models: dict[str, Path], tmp_path: Path) -> None:
    pictures = tiny.plain_pictures(tmp_path / "pictures", COLOURS)
    given = {**sections(models["sd1"], pictures), "lora": {"rank": 2, "unet": ["*"]}}
    tiny.train("inpainting", tmp_path / "first", given)
    made = tmp_path / "first" / "export" / "inpainting.safetensors"
    other = tmp_path / "other"
    shutil.copytree(models["sd1"], other)
    changed = load_file(other / "unet" / "diffusion_pytorch_model.safetensors")
    changed["conv_out.bias"] += 0.5
    save_file(changed, other / "unet" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    shutil.copy(made, other)
    with pytest.raises(WeightsError, match="was trained beside another UNet"):
        sfumato.load(other).inpainter  # noqa: B018  (a property that reads)
    start = {"model": str(other), "companion": str(made)}
    still = {**sections(other, pictures), "start": start, "optimizer": {"rate": 1e-30}}  # which moves nothing
    tiny.train("inpainting", tmp_path / "still", still)
    kept = tmp_path / "still" / "export" / "inpainting.safetensors"
    before, after = load_file(made), load_file(kept)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    shutil.copy(kept, other)
    assert sfumato.load(other).inpainter is not None
    tiny.train("inpainting", tmp_path / "further", {**sections(other, pictures), "start": start})
    learnt = load_file(tmp_path / "further" / "export" / "inpainting.safetensors")
    assert not torch.equal(before["conv_in.weight"], learnt["conv_in.weight"])
    with pytest.raises(ConfigError, match="has its own layers, ranks and alphas"):
        tiny.train("inpainting", tmp_path / "wrong", {**given, "start": start})
    with pytest.raises(WeightsError, match="no inpainting companion"):
        unet = str(other / "unet" / "diffusion_pytorch_model.safetensors")
        tiny.train("inpainting", tmp_path / "wrong", {**still, "start": {**start, "companion": unet}})


def test_what_only_the_drawn_world_knows_is_refused_elsewhere(
    models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"things needs data.source = 'world'"):
        tiny.train("inpainting", tmp_path / "run", sections(models["sd1"], pictures, things=0.5))
    with pytest.raises(ConfigError, match=r"inpainting.things is 1.5"):
        tiny.train("inpainting", tmp_path / "run", sections(models["sd1"], pictures, things=1.5))


def test_workers_change_nothing_where_things_are_masked(models: dict[str, Path], tmp_path: Path) -> None:
    for workers in (0, 2):
        given = {
            "run": {"workers": workers, "batch": 8, "steps": 3},
            "data": {"source": "world", "size": 32, "pool": 12, "caption": "", "counts": [0.5, 0.5]},
            "start": {"model": str(models["sd1"])},
            "inpainting": {"things": 0.5},
            "lora": {"rank": 2, "unet": ["attention"]},
        }
        assert tiny.train("inpainting", tmp_path / str(workers), given) == 3
    found, expected = tiny.state(tmp_path / "2"), tiny.state(tmp_path / "0")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lora": {"dialect": "peft"}}, r"lora\.dialect is given, but a companion"),
        ({"lora": {"unet": ["conv_in*"]}}, r"names the first layer alone"),
        ({"lora": {"unet": ["*.nothing"]}}, r"No layer of this network fits"),
    ],
)
def test_what_is_no_companion_is_refused(
    models: dict[str, Path], pictures: Path, tmp_path: Path, wrong: dict[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.train("inpainting", tmp_path / "run", {**sections(models["sd1"], pictures), **wrong})


def test_recomputed_activations_change_nothing_of_a_companion(
    models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    for recompute in (False, True):
        given = {**sections(models["sd1"], pictures), "lora": {"rank": 2}, "run": {"recompute": recompute, "steps": 1}}
        tiny.train("inpainting", tmp_path / str(recompute), given)
    assert tiny.losses(tmp_path / "True") == tiny.losses(tmp_path / "False")


@pytest.mark.parametrize("keep", [False, True])
def test_pictures_that_are_cut_anew_are_refused_kept_or_not(
    models: dict[str, Path], tmp_path: Path, keep: bool
) -> None:
    folder = tiny.plain_pictures(tmp_path / "set")
    text = f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{folder}"\nclass_tokens = "a"\nrandom_crop = true\n'
    (tmp_path / "set.toml").write_text(text)
    given = sections(models["sd1"], tmp_path / "set.toml")
    given["data"] |= {"keep": keep, "caption": ""}
    with pytest.raises(ConfigError, match="random_crop cuts pictures anew each time"):
        tiny.train("inpainting", tmp_path / "run", given)
