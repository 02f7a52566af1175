"""Folders of A1111, Forge and ComfyUI, used where they are: which folder holds which kind, and the files in it.

Nothing is copied or moved, and nothing is opened: the kind is that of the folder. Nothing here imports torch.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from sfumato.errors import ModelFileError, ModelNotFoundError
from sfumato.weights.component_files import SUFFIXES
from sfumato.weights.registry import KINDS, Folder, Kind

YAML_LIMIT = 1024 * 1024  # bytes
YAML_NAME = "extra_model_paths.yaml"
DEEPEST = 8  # folders within folders
MOST_FILES = 50_000
# Where these programs keep each kind, from their roots.
A1111: Mapping[Kind, tuple[str, ...]] = {
    "model": ("models/Stable-diffusion",),
    "vae": ("models/VAE",),
    "lora": ("models/Lora", "models/LyCORIS"),
    "embedding": ("embeddings",),
    "controlnet": ("models/ControlNet", "extensions/sd-webui-controlnet/models"),
    "upscaler": ("models/ESRGAN", "models/RealESRGAN", "models/SwinIR", "models/DAT"),
}
COMFYUI: Mapping[Kind, tuple[str, ...]] = {
    "model": ("models/checkpoints", "models/diffusers"),
    "vae": ("models/vae",),
    "lora": ("models/loras",),
    "embedding": ("models/embeddings",),
    "controlnet": ("models/controlnet", "models/t2i_adapter", "models/ipadapter"),
    "upscaler": ("models/upscale_models",),
}
# ComfyUI's words for the kinds, in extra_model_paths.yaml.
WORDS: Mapping[str, Kind] = {
    "checkpoints": "model",
    "diffusers": "model",
    "vae": "vae",
    "loras": "lora",
    "embeddings": "embedding",
    "controlnet": "controlnet",
    "t2i_adapter": "controlnet",
    "ipadapter": "controlnet",
    "upscale_models": "upscaler",
}


@dataclass(frozen=True)
class Entry:
    """A file or a diffusers folder that can be named: by its path within its kind's folder, without the suffix."""

    name: str
    kind: Kind
    path: Path

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called, most exact first: with its folder and suffix, and without each of them."""
        full = f"{self.name}{self.path.suffix}" if self.path.is_file() else self.name
        return full, self.name, full.rpartition("/")[2], self.name.rpartition("/")[2]


def adopt(place: Path) -> Folder:
    """Tell which folders of a root, or of an extra_model_paths.yaml, hold which kind.

    Raises ModelNotFoundError for what is neither, ModelFileError for a damaged yaml.
    """
    place = place.expanduser().absolute()
    if place.suffix in (".yaml", ".yml") and place.is_file():
        return Folder(place, "extra_model_paths", read_paths(place))
    if not place.is_dir():
        raise ModelNotFoundError(f"{place}: no folder. Name the folder of A1111, Forge or ComfyUI, or its {YAML_NAME}.")
    for layout, table in (("comfyui", COMFYUI), ("a1111", A1111)):
        if not any((place / folder).is_dir() for folder in table["model"]):
            continue
        kinds = {kind: tuple(place / each for each in table[kind] if (place / each).is_dir()) for kind in KINDS}
        if layout == "comfyui" and (place / YAML_NAME).is_file():
            extra = read_paths(place / YAML_NAME)
            kinds = {kind: (*kinds[kind], *extra.get(kind, ())) for kind in KINDS}
        return Folder(place, layout, {kind: paths for kind, paths in kinds.items() if paths})
    raise ModelNotFoundError(
        f"{place}: not a folder of A1111 or Forge (it would have models/Stable-diffusion) nor of ComfyUI "
        "(models/checkpoints). Name the program's own folder, or add single files."
    )


def read_paths(path: Path) -> dict[Kind, tuple[Path, ...]]:
    """Read ComfyUI's extra_model_paths.yaml: the folders of each kind that it names and that are there."""
    found: dict[Kind, list[Path]] = {}
    for section in read_yaml(path).values():
        if not isinstance(section, dict):
            continue
        stated = section.get("base_path")
        base = path.parent / expanded(stated) if isinstance(stated, str) else path.parent
        for word, lines in section.items():
            if word not in WORDS or not isinstance(lines, str):
                continue
            for line in filter(None, map(str.strip, lines.splitlines())):
                if (base / expanded(line)).is_dir():
                    found.setdefault(WORDS[word], []).append(base / expanded(line))
    return {kind: tuple(paths) for kind, paths in found.items()}


def expanded(text: str) -> Path:
    """Return a path with ~ and variables replaced."""
    return Path(os.path.expandvars(os.path.expanduser(text)))


def read_yaml(path: Path) -> dict[str, object]:
    """Read a YAML file of plain values. Raises ModelFileError for tags, references, and what is no table."""
    try:
        if path.stat().st_size > YAML_LIMIT:
            raise ModelFileError(f"{path}: larger than {YAML_LIMIT:,} bytes, too long for a configuration.")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, yaml.SafeLoader)):
            raise ModelFileError(f"{path}: has references (*name), which are not read; write the values out.")
        value = yaml.safe_load(text)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not valid YAML: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: should hold a table and holds a {type(value).__name__}.")
    return value


def entries(folders: tuple[Folder, ...], kind: Kind) -> Iterator[Entry]:
    """Give the files and diffusers folders of one kind, in the order in which their folders were added."""
    seen: set[Path] = set()
    for folder in folders:
        for base in folder.kinds.get(kind, ()):
            for path in walk(base):
                if is_kind(path, kind) and (real := path.resolve()) not in seen:
                    seen.add(real)
                    inner = path.relative_to(base)
                    name = inner if path.is_dir() else inner.with_name(inner.name.removesuffix(inner.suffix))
                    yield Entry(name.as_posix(), kind, path)
        if kind == "vae":  # A1111 reads them beside the checkpoints, too
            for base in folder.kinds.get("model", ()):
                for path in walk(base):
                    if ".vae." in path.name and (real := path.resolve()) not in seen:
                        seen.add(real)
                        yield Entry(path.relative_to(base).as_posix().removesuffix(path.suffix), kind, path)


def is_kind(path: Path, kind: Kind) -> bool:
    """Say whether a file in a kind's folder is of that kind: autoencoders lie beside checkpoints, by their names."""
    return kind != "model" or ".vae." not in path.name


def walk(base: Path) -> Iterator[Path]:
    """Give the weight files and diffusers folders below a folder, sorted; links are followed, but not in circles."""
    waiting, visited, count = [(base, 0)], set(), 0
    while waiting:
        folder, depth = waiting.pop()
        try:
            real = folder.resolve()
            inside = sorted(folder.iterdir(), key=lambda path: path.name.lower())
        except OSError:  # not ours to read, or gone
            continue
        if real in visited:
            continue
        visited.add(real)
        deeper = []
        for path in inside:
            count += 1
            if path.name.startswith(".") or count > MOST_FILES:
                continue
            if path.is_dir():
                if (path / "model_index.json").is_file():
                    yield path
                elif depth < DEEPEST:
                    deeper.append((path, depth + 1))
            elif path.suffix.lower() in SUFFIXES:
                yield path
        waiting += reversed(deeper)
