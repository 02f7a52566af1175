"""models, scenes, train, doctor and demo as processes."""

import json
from pathlib import Path

from cli_run import Run
from PIL import Image


def test_a_model_is_named_shown_converted_verified_and_forgotten(sfumato: Run, model: Path, here: Path) -> None:
    assert sfumato("models", "add", "tiny", model).stdout == f"{model}\n"
    listed = json.loads(sfumato("models", "list", "--json").stdout)
    assert {"name": "tiny", "kind": "alias", "place": str(model), "what": "model"} in listed
    shown = json.loads(sfumato("models", "show", "tiny", "--json").stdout)
    assert shown["prediction"] == "epsilon"
    assert set(shown["components"]) == {"unet", "vae", "text_encoder"}
    converted = sfumato("models", "convert", "tiny", "tiny.safetensors", "--dtype", "float16")
    assert (converted.returncode, converted.stdout) == (0, "tiny.safetensors\n"), converted.stderr
    again = sfumato("models", "convert", "tiny.safetensors", "folder")  # as it is: float16 stays float16
    assert again.returncode == 0, again.stderr
    unet = json.loads(sfumato("models", "show", "folder", "--json").stdout)["components"]["unet"]
    assert unet["parameters"] == shown["components"]["unet"]["parameters"]
    assert unet["dtypes"] == ["F16"]
    verified = sfumato("models", "verify", "folder")
    assert [line.split()[1] for line in verified.stdout.splitlines()] == ["unet", "vae", "text_encoder"]
    for name in ("tiny.bin", "tiny.ckpt", "tiny.SAFETENSORS"):
        wrong = sfumato("models", "convert", "tiny", name)
        assert (wrong.returncode, "ends in .safetensors, or a new folder" in wrong.stderr) == (2, True), wrong.stderr
    refused = sfumato("models", "convert", "tiny", "folder")
    assert (refused.returncode, "folder exists" in refused.stderr) == (1, True)
    assert sfumato("models", "remove", "tiny").returncode == 0
    assert sfumato("models", "show", "tiny").returncode == 1


def test_rendered_scenes_are_a_dataset_with_the_captions_that_caption_prints(sfumato: Run, here: Path) -> None:
    done = sfumato("scenes", "render", "world", "--count", 3, "--seed", 9, "--size", 48, "--things", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"world/0000000{number}.png" for number in range(3)]
    lines = [json.loads(line) for line in (here / "world/metadata.jsonl").read_text().splitlines()]
    captions = sfumato("scenes", "caption", "--count", 3, "--seed", 9, "--things", 2).stdout.splitlines()
    assert [line["text"] for line in lines] == captions
    with Image.open(here / "world" / lines[0]["file_name"]) as picture:
        assert picture.size == (48, 48)


def test_the_vocabulary_names_every_word_list(sfumato: Run) -> None:
    words = json.loads(sfumato("scenes", "vocabulary", "--json").stdout)
    assert "red" in words["colours"]
    assert "house" in words["things"]


def test_doctor_tells_the_device_the_precision_and_what_is_missing(sfumato: Run) -> None:
    done = sfumato("doctor", "--device", "cpu", "--json")
    facts = json.loads(done.stdout)
    assert (facts["device"], facts["precision"]) == ("cpu", "float32")
    assert done.returncode == (1 if facts["missing"] else 0)
    assert sfumato("doctor", "--device", "abacus").returncode == 2
