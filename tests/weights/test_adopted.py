"""Folders of A1111 and ComfyUI, used where they are, and the names that their users know."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import sfumato
from sfumato.errors import ModelFileError, ModelNotFoundError
from sfumato.weights.adopted import adopt, entries, read_yaml
from sfumato.weights.hashing import hash_file
from sfumato.weights.kinds import kind_of
from sfumato.weights.known import known
from sfumato.weights.locate import (
    add_alias,
    add_folder,
    added_prediction,
    aliases,
    home,
    locate,
    registry,
    remove_alias,
)
from sfumato.weights.save import save_file as save_model
from sfumato.weights.titles import old_hash

A1111 = {
    "models/Stable-diffusion/v1-5.safetensors": 1,
    "models/Stable-diffusion/anime/Counter.ckpt": 2,
    "models/Stable-diffusion/v1-5.vae.pt": 3,
    "models/Stable-diffusion/Put Stable Diffusion checkpoints here.txt": 4,
    "models/VAE/mse.safetensors": 5,
    "models/Lora/ink.safetensors": 6,
    "models/LyCORIS/loha.safetensors": 7,
    "embeddings/EasyNegative.pt": 8,
    "models/ControlNet/canny.pth": 9,
    "models/ESRGAN/4x.pth": 10,
}


def tree(root: Path, files: dict[str, int]) -> Path:
    """Files that differ by their content, which nobody reads here."""
    for name, number in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(bytes([number]) * 70_000 * 17)
    return root


def found(root: Path) -> dict[str, list[str]]:
    folder = adopt(root)
    return {kind: [entry.name for entry in entries((folder,), kind)] for kind in folder.kinds}


def test_a1111_s_folders_are_known(tmp_path: Path) -> None:
    assert found(tree(tmp_path, A1111)) == {
        "model": ["v1-5", "anime/Counter"],
        "vae": ["mse", "v1-5.vae"],
        "lora": ["ink", "loha"],
        "embedding": ["EasyNegative"],
        "controlnet": ["canny"],
        "upscaler": ["4x"],
    }


def test_comfyui_s_folders_and_those_that_its_yaml_names_are_known(tmp_path: Path) -> None:
    webui = tree(tmp_path / "webui", A1111)
    files = {"models/checkpoints/xl.safetensors": 1, "models/loras/a/b.safetensors": 2, "models/vae/v.pt": 3}
    comfy = tree(tmp_path / "comfy", files)
    (comfy / "extra_model_paths.yaml").write_text(
        "a111:\n    base_path: ../webui/\n    checkpoints: models/Stable-diffusion\n"
        "    configs: models/Stable-diffusion\n    vae: models/VAE\n    loras: |\n         models/Lora\n"
        "         models/LyCORIS\n         models/not there\n    embeddings: embeddings\n\n#comfyui:\n#  base_path: x\n"
        "other_ui:\n    is_default: true\n    base_path: ~/nowhere\n    custom_nodes: here\n"
    )
    assert found(comfy) == {
        "model": ["xl", "v1-5", "anime/Counter"],
        "vae": ["v", "mse", "v1-5.vae"],
        "lora": ["a/b", "ink", "loha"],
        "embedding": ["EasyNegative"],
    }
    assert found(comfy / "extra_model_paths.yaml")["lora"] == ["ink", "loha"]
    assert webui.is_dir()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x [1]\nb: *x\n", "references"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("- 1\n", "a table"),
        ("a: [", "not valid YAML"),
        ("a: " + "[" * 5000, "not valid YAML"),
    ],
)
def test_a_yaml_that_is_more_than_a_table_of_values_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ModelFileError, match=says):
        read_yaml(tmp_path / "a.yaml")


def test_a_folder_of_another_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="models/Stable-diffusion"):
        adopt(tmp_path)
    with pytest.raises(ModelNotFoundError, match="no folder"):
        adopt(tmp_path / "no")


def test_names_with_and_without_folder_suffix_and_hash_lead_to_the_file(tmp_path: Path) -> None:
    root = tree(tmp_path, A1111)
    add_folder(root)
    model = root / "models/Stable-diffusion/v1-5.safetensors"
    digest = hash_file(model)
    for name in (
        "v1-5",
        "v1-5.safetensors",
        "V1-5.SafeTensors",
        f"v1-5.safetensors [{digest[:10]}]",
        f"v1-5 [{digest}]",
    ):
        assert locate(name) == model, name
    for name in (digest[:10], digest, old_hash(model), f"v1-5 [{old_hash(model)}]"):
        assert locate(name) == model, name
    for name in ("anime/Counter", "anime/Counter.ckpt", "anime\\Counter.ckpt", "Counter", "counter.ckpt"):
        assert locate(name) == root / "models/Stable-diffusion/anime/Counter.ckpt", name
    assert locate("ink", kind="lora") == root / "models/Lora/ink.safetensors"
    assert locate("EasyNegative", kind="embedding") == root / "embeddings/EasyNegative.pt"
    assert locate("v1-5.vae.pt", kind="vae") == root / "models/Stable-diffusion/v1-5.vae.pt"


def test_a_wrong_hash_and_a_wrong_name_are_told_with_what_is_there(tmp_path: Path) -> None:
    add_folder(tree(tmp_path, A1111))
    with pytest.raises(ModelNotFoundError, match=r"its hash is .*not 0123456789"):
        locate("v1-5.safetensors [0123456789]")
    with pytest.raises(ModelNotFoundError, match="Did you mean 'v1-5'"):
        locate("v1-4")
    with pytest.raises(ModelNotFoundError, match=r"no lora 'inc'.*adopted folders \(2 loras\).*Did you mean 'ink'"):
        locate("inc", kind="lora")


def test_two_files_of_a_name_are_told_apart_unless_they_are_the_same(tmp_path: Path) -> None:
    files = {"models/Lora/a/x.safetensors": 1, "models/Lora/b/x.safetensors": 2, "models/Stable-diffusion/m.ckpt": 1}
    root = tree(tmp_path, files)
    add_folder(root)
    with pytest.raises(ModelNotFoundError, match="the name of 2 files"):
        locate("x", kind="lora")
    assert locate("b/x", kind="lora") == root / "models/Lora/b/x.safetensors"
    second = root / "models/Lora/b/x.safetensors"
    digest = hash_file(second)
    assert locate(f"x [{digest[:10]}]", kind="lora") == second
    second.write_bytes((root / "models/Lora/a/x.safetensors").read_bytes())
    assert locate("x", kind="lora") == root / "models/Lora/a/x.safetensors"


def test_a_lora_is_found_by_what_its_trainer_called_it(tmp_path: Path) -> None:
    """A1111 writes ss_output_name into prompts; a file's own name goes first, and two of one name are told."""
    add_folder(tree(tmp_path / "webui", A1111))
    folder = tmp_path / "webui" / "models" / "Lora"

    def lora(file: str, called: str, size: int) -> Path:
        save_file({"x": torch.zeros(size)}, folder / file, {"ss_output_name": called})
        return folder / file

    renamed, other = lora("my_download.safetensors", "InkStyle_v2", 1), lora("b.safetensors", "ink", 2)
    assert locate("InkStyle_v2", kind="lora") == renamed
    assert locate("ink", kind="lora").name == "ink.safetensors"
    with pytest.raises(ModelNotFoundError, match="no model 'InkStyle_v2'"):
        locate("InkStyle_v2")
    lora("c.safetensors", "InkStyle_v2", 3)
    with pytest.raises(ModelNotFoundError, match="the name of 2 files"):
        locate("InkStyle_v2", kind="lora")
    assert locate("b", kind="lora") == other


def test_links_in_circles_end(tmp_path: Path) -> None:
    root = tree(tmp_path, A1111)
    (root / "models/Lora/loop").symlink_to(root / "models/Lora")
    (root / "models/Lora/other.safetensors").symlink_to(root / "models/Lora/ink.safetensors")
    assert found(root)["lora"] == ["ink", "loha"]


def test_a_folder_added_twice_is_looked_at_anew_and_can_be_forgotten(tmp_path: Path) -> None:
    root = tree(tmp_path, A1111)
    add_folder(root)
    tree(root, {"models/DAT/8x.pth": 11})
    add_folder(root)
    assert [entry.name for entry in known("upscaler")] == ["4x", "8x"]
    assert [entry.kind for entry in known("lora")] == ["folder", "folder"]
    remove_alias(str(root))
    assert registry().folders == () and list(known("lora")) == []


def test_an_alias_keeps_what_was_said_of_it_and_old_files_are_read(tmp_path: Path) -> None:
    add_alias("plain", tmp_path)
    add_alias("vee", tmp_path, kind="model", prediction="v_prediction")
    add_alias("style", tmp_path, kind="lora")
    stated = json.loads((home() / "models.json").read_text())["aliases"]
    assert stated["plain"] == str(tmp_path)  # as before there was more to say
    assert added_prediction("vee") == "v_prediction" and added_prediction("plain") is None
    assert set(aliases("model")) == {"plain", "vee"}
    assert [entry.name for entry in known("lora")] == ["style"]
    (home() / "models.json").write_text('{"aliases": {"a": {"place": "x", "kind": "nonsense"}}}')
    with pytest.raises(ModelFileError, match=r"models\.json"):
        registry()


KINDS = {
    "lora": {"lora_unet_x.lora_down.weight": (4, 8), "lora_unet_x.lora_up.weight": (8, 4)},
    "embedding": {"emb_params": (2, 768)},
    "upscaler": {"conv_first.weight": (64, 3, 3, 3)},
    "controlnet": {"control_model.input_hint_block.0.weight": (16, 3, 3, 3)},
    "vae": {"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.conv_in.weight": (512, 4, 3, 3)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pickled", [False, True])
def test_the_kind_is_told_from_the_tensors(tmp_path: Path, kind: str, pickled: bool) -> None:
    tensors = {name: torch.zeros(shape) for name, shape in KINDS[kind].items()}
    path = tmp_path / "model.bin"
    if pickled:
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    assert kind_of(path)[0] == kind


def test_a_single_file_of_a_family_of_its_own_is_a_model(tmp_path: Path) -> None:
    save_model(sfumato.load(), tmp_path / "drawn.safetensors")
    assert kind_of(tmp_path / "drawn.safetensors")[0] == "model"


def test_what_has_no_kind_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelFileError, match="no use for"):
        kind_of(tmp_path / "a.safetensors")
    os.link(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    with pytest.raises(ModelFileError, match="a folder with one weight file"):
        kind_of(tmp_path)
