"""Single files: there and back, what else they hold, and what reads them."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_load_folder import same_weights, unet_outputs
from weights_pipelines import KINDS

from sfumato.errors import ModelFileError, OutputError, WeightsError
from sfumato.weights import save
from sfumato.weights.ldm import ema_name
from sfumato.weights.load import load

Pipelines = Callable[[str], tuple[Any, Path]]
UNET = "model.diffusion_model."


@pytest.fixture(scope="module")
def singles(pipelines: Pipelines, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """kind -> the single file of that pipeline."""
    root = tmp_path_factory.mktemp("singles")

    def of(kind: str) -> Path:
        path = root / f"{kind}.safetensors"
        return path if path.exists() else save.save_file(load(pipelines(kind)[1]), path)

    return of


def rewritten(path: Path, to: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """A copy of a file with other tensors and the same metadata."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, to, metadata)
    return to


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_written_to_a_single_file_is_read_back_exactly(
    pipelines: Pipelines, singles: Callable[[str], Path], kind: str
) -> None:
    model, found = load(pipelines(kind)[1]), load(singles(kind))
    assert same_weights(model, found)
    assert found.notes == ()
    for name in ("family", "schedule", "sampling", "prediction", "scheduler", "options"):
        assert getattr(found, name) == getattr(model, name)
    assert found.text.rules == model.text.rules
    assert found.unet.config == model.unet.config
    assert found.autoencoder.config == model.autoencoder.config
    prompt = "a horse, of course!"
    for ours, theirs in zip(found.text.tokenizers, model.text.tokenizers, strict=True):
        assert ours.encode(prompt) == theirs.encode(prompt)
        assert (ours.pad, ours.bos, ours.eos, ours.max_length) == (
            theirs.pad,
            theirs.bos,
            theirs.eos,
            theirs.max_length,
        )


@torch.no_grad()
def test_diffusers_reads_a_single_file_of_ours(
    pipelines: Pipelines, singles: Callable[[str], Path], tmp_path: Path
) -> None:
    pipeline, folder = pipelines("sd1")
    read = diffusers.UNet2DConditionModel.from_single_file(
        str(singles("sd1")), config=str(folder), subfolder="unet", local_files_only=True
    )
    expected = pipeline.unet.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read.state_dict().items())


def test_a_single_file_in_half_precision_holds_the_rounded_weights(pipelines: Pipelines, tmp_path: Path) -> None:
    model = load(pipelines("sd1")[1])
    path = save.save_file(model, tmp_path / "half.safetensors", dtype=torch.float16)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    assert torch.equal(load(path).unet.conv_in.weight, model.unet.conv_in.weight.half().float())


def test_what_else_is_in_a_file_is_named_and_not_used(singles: Callable[[str], Path], tmp_path: Path) -> None:
    strays = {
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(3),
        "alphas_cumprod": torch.ones(1000),
        "betas": torch.ones(1000),
        "sqrt_one_minus_alphas_cumprod": torch.ones(1000),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "cond_stage_model.logit_scale": torch.tensor(4.6),
        "first_stage_model.loss.discriminator.main.0.weight": torch.ones(2, 2),
        "model.scale_factor": torch.tensor(0.18215),
        "something.else": torch.ones(1),
    }
    path = rewritten(singles("sd1"), tmp_path / "strays.safetensors", lambda tensors: tensors.update(strays))
    model = load(path)
    assert same_weights(model, load(singles("sd1")))
    for part in ("EMA|averaged copy", "position ids", "tables of the noise schedule", "losses", "unknown", "scale"):
        assert any(word in note for note in model.notes for word in part.split("|")), part
    named = " ".join(model.notes)
    assert "something.else" in named
    assert "3 tensors not used, tables of the noise schedule: alphas_cumprod, ..." in model.notes


def test_the_averaged_unet_is_read_when_it_is_asked_for(singles: Callable[[str], Path], tmp_path: Path) -> None:
    def add_average(tensors: dict[str, torch.Tensor]) -> None:
        average = {ema_name(name): tensor + 1 for name, tensor in tensors.items() if name.startswith(UNET)}
        tensors.update(average)

    path = rewritten(singles("sd1"), tmp_path / "ema.safetensors", add_average)
    trained, averaged, plain = load(path), load(path, ema=True), load(singles("sd1"))
    assert same_weights(trained, plain)
    assert any("EMA" in note for note in trained.notes)
    assert torch.equal(averaged.unet.conv_in.weight, plain.unet.conv_in.weight + 1)
    assert same_weights(replace(averaged, unet=plain.unet), plain)
    assert any("averaged copy was asked for" in note for note in averaged.notes)
    with pytest.raises(WeightsError, match="no averaged copy"):
        load(singles("sd1"), ema=True)


def test_a_text_encoder_without_its_wrapper_is_read(singles: Callable[[str], Path], tmp_path: Path) -> None:
    def unwrap(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".text_model." in name]:
            tensors[name.replace(".text_model.", ".")] = tensors.pop(name)

    path = rewritten(singles("sd1"), tmp_path / "flat.safetensors", unwrap)
    assert same_weights(load(path), load(singles("sd1")))


def test_attention_of_the_autoencoder_is_read_as_matrices_too(singles: Callable[[str], Path], tmp_path: Path) -> None:
    def flatten(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".mid.attn_1." in name and tensors[name].ndim == 4]:
            tensors[name] = tensors[name].flatten(1)

    path = rewritten(singles("sd1"), tmp_path / "flat.safetensors", flatten)
    assert same_weights(load(path), load(singles("sd1")))


Change = Callable[[dict[str, torch.Tensor]], Any]
IN = UNET + "input_blocks.0.0.weight"
BROKEN: dict[str, tuple[Change, str]] = {
    "a missing tensor": (lambda t: t.pop(UNET + "out.2.bias"), "1 tensor missing, first 'model.diffusion_model.out.2"),
    "many missing": (
        lambda t: [t.pop(name) for name in list(t) if ".middle_block." in name],
        r"\d+ tensors missing, first",
    ),
    "an unknown tensor in the UNet": (lambda t: t.update({UNET + "extra.weight": torch.ones(1)}), "1 tensor too many"),
    "an unknown tensor in the VAE": (lambda t: t.update({"first_stage_model.x": torch.ones(1)}), "1 tensor too many"),
    "another shape": (lambda t: t.update({IN: torch.ones(32, 9, 3, 3)}), r"\[32, 9, 3, 3\] instead of \[32, 4, 3, 3\]"),
    "float8 scales": (lambda t: t.update({UNET + "out.2.scale_weight": torch.ones(1)}), "too many"),
    "integers": (lambda t: t.update({IN: torch.ones(32, 4, 3, 3, dtype=torch.int8)}), "holds I8"),
    "NaN": (lambda t: t[IN].view(-1)[7].fill_(float("nan")), r"1 of 1,152 numbers of .*input_blocks\.0\.0\.weight"),
    "infinite": (lambda t: t[IN].fill_(float("inf")), "1,152 of 1,152"),
    "text of another model": (
        lambda t: [t.pop(name) for name in list(t) if name.startswith("cond_stage_model.")],
        "tensors missing, first 'cond_stage_model.",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_single_file_gets_one_error_that_says_what_is_wrong(
    singles: Callable[[str], Path], tmp_path: Path, case: str
) -> None:
    change, says = BROKEN[case]
    path = rewritten(singles("sd1"), tmp_path / "broken.safetensors", change)
    with pytest.raises(ModelFileError, match=says) as caught:
        load(path)
    assert str(path) in str(caught.value)


METADATA: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no UNet": (lambda s: s.pop("unet"), "metadata 'sfumato' is damaged"),
    "an unknown kind": (lambda s: s.update(kind="sd9"), "metadata 'sfumato' is damaged"),
    "too many encoders": (lambda s: s.update(text=s["text"] * 2), "has 2 text encoders"),
    "an unknown option": (lambda s: s["unet"].update(class_embed_type="timestep"), "class_embed_type"),
    "endless layers": (lambda s: s["text"][0].update(num_hidden_layers=10**9), "beyond anything"),
    "a tokenizer of nothing": (lambda s: s.update(tokenizers=[{}]), "damaged"),
    "a list for a scheduler": (lambda s: s.update(scheduler=[1, 2]), "damaged"),
    "no prediction": (lambda s: s.pop("prediction"), "None is not known"),
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata_of_ours_that_was_changed_is_refused(
    singles: Callable[[str], Path], tmp_path: Path, case: str
) -> None:
    change, says = METADATA[case]
    with safe_open(singles("sd1"), "pt") as file:
        metadata = file.metadata()
    stated = json.loads(metadata["sfumato"])
    change(stated)
    path = tmp_path / "changed.safetensors"
    save_file(load_file(singles("sd1")), path, {**metadata, "sfumato": json.dumps(stated)})
    with pytest.raises(Exception, match=says) as caught:
        load(path)
    assert type(caught.value).__module__ == "sfumato.errors"


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 10_000, '"x"'])
def test_metadata_of_ours_that_is_no_object_is_refused(
    singles: Callable[[str], Path], tmp_path: Path, text: str
) -> None:
    path = tmp_path / "changed.safetensors"
    save_file(load_file(singles("sd1")), path, {"sfumato": text})
    with pytest.raises(ModelFileError, match="metadata 'sfumato' is damaged"):
        load(path)


def test_a_single_file_is_named_safetensors_and_does_not_replace_another(pipelines: Pipelines, tmp_path: Path) -> None:
    model = load(pipelines("sd1")[1])
    with pytest.raises(OutputError, match="name it so"):
        save.save_file(model, tmp_path / "model.ckpt")
    path = save.save_file(model, tmp_path / "model.safetensors")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        save.save_file(model, path)
    assert path.read_bytes() == before
    save.save_file(model, path, overwrite=True)
    assert Counter(path.read_bytes()) == Counter(before)  # the library writes the metadata in any order
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


@torch.no_grad()
def test_single_files_of_all_kinds_draw_as_the_reference_does(
    pipelines: Pipelines, singles: Callable[[str], Path]
) -> None:
    for kind in KINDS:
        ours, theirs = unet_outputs(load(singles(kind)), pipelines(kind)[0])
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)  # float32 sums in another order
