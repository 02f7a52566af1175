"""What a file or folder is for: a model, an autoencoder, a LoRA, ... told from what is in it, never from its name."""

from pathlib import Path

from sfumato.errors import ModelFileError
from sfumato.weights.build import shapes_of
from sfumato.weights.component_files import weight_files
from sfumato.weights.files import open_file, read_json
from sfumato.weights.lora_file import lora_files
from sfumato.weights.recognise import LORA, recognise
from sfumato.weights.registry import Kind
from sfumato.weights.single import METADATA

# How `recognise` calls files, by their beginnings, and which kind that is.
CALLED: tuple[tuple[str, Kind], ...] = (
    (LORA, "lora"),
    ("a VAE only", "vae"),
    ("a textual inversion embedding", "embedding"),
    ("a ControlNet", "controlnet"),
    ("a T2I-Adapter", "controlnet"),
    ("an IP-Adapter", "controlnet"),
    ("an upscaler", "upscaler"),
)
# The classes of folders' config.json.
CLASSES: dict[str, Kind] = {
    "AutoencoderKL": "vae",
    "ControlNetModel": "controlnet",
    "T2IAdapter": "controlnet",
}


def kind_of(path: Path) -> tuple[Kind, str]:
    """Return the kind of a file or folder, and what shows it. Raises ModelFileError for what is none that is used."""
    if path.is_dir():
        return kind_of_folder(path)
    tensors = open_file(path)
    if METADATA in tensors.metadata:
        return "model", "its metadata has sfumato's configurations"
    looks = recognise(shapes_of(tensors))
    if looks.family is not None or looks.almost is not None:  # the latter draws with an autoencoder that is brought
        return "model", f"{looks.what}: {looks.reason}"
    for called, kind in CALLED:
        if looks.what.startswith(called):
            return kind, f"{looks.what}: {looks.reason}"
    raise ModelFileError(f"{path}: {looks.what} ({looks.reason}), which sfumato has no use for.")


def kind_of_folder(path: Path) -> tuple[Kind, str]:
    """Return the kind of a folder: by its configuration, or by its only file."""
    if (path / "model_index.json").is_file():
        return "model", "it has a model_index.json"
    if (path / "config.json").is_file():
        stated = read_json(path / "config.json").get("_class_name")
        if isinstance(stated, str) and stated in CLASSES:
            return CLASSES[stated], f"its config.json describes a {stated}"
    if (path / "adapter_config.json").is_file():
        return "lora", "it has an adapter_config.json"
    files = lora_files(path)
    if len(files) != 1:
        there = ", ".join(each.name for each in weight_files(path)[:5]) or "none"
        raise ModelFileError(
            f"{path}: neither a model (model_index.json) nor a folder with one weight file; it has {there}. Name one "
            "of them, or adopt the folder of A1111 or ComfyUI with --from."
        )
    return kind_of(files[0])
