"""The files of a diffusers folder's components: whole or in shards, plain or of a variant, safetensors or pickles."""

from pathlib import Path

from sfumato.errors import ModelFileError

UNET_STEM = "diffusion_pytorch_model"  # the autoencoder's too
TEXT_STEM = "model"
PICKLE_STEMS = {UNET_STEM: UNET_STEM, TEXT_STEM: "pytorch_model"}  # how the same is called as a .bin
COMPANION_FILE = "inpainting.safetensors"  # beside the components: what makes the UNet see a mask
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")  # of files that may hold weights; the first is preferred


def find_weights(folder: Path, stem: str, variant: str | None = None) -> Path:
    """Return the weights of a component: a file, or the index of its shards; a pickle where there is nothing else.

    Raises ModelFileError that says what is there instead: another variant, or nothing.
    """
    for candidate in candidates(folder, stem, variant):
        if candidate.is_file():
            return candidate
    present = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    wanted = candidates(folder, stem, variant)[0].name
    others = variants(folder, stem)
    if others:
        said = " or ".join(f"variant={other!r}" if other else "no variant" for other in others)
        raise ModelFileError(f"{folder}: has no {wanted}; its weights are there with {said}: ask for that.")
    raise ModelFileError(f"{folder}: has no {wanted}; there is {', '.join(present) or 'nothing'}. Download it again.")


def candidates(folder: Path, stem: str, variant: str | None) -> tuple[Path, ...]:
    """Return the names that the weights can have, in order of preference."""
    mark = f".{variant}" if variant else ""
    return tuple(
        folder / name
        for each, suffix in ((stem, "safetensors"), (PICKLE_STEMS[stem], "bin"))
        for name in (f"{each}{mark}.{suffix}", f"{each}.{suffix}.index{mark}.json")
    )


def variants(folder: Path, stem: str) -> list[str]:
    """List the variants that a component is there in; "" is the plain one."""
    found = set()
    for each, suffix in ((stem, "safetensors"), (PICKLE_STEMS[stem], "bin")):
        for entry in folder.glob(f"{each}*"):
            name = entry.name
            if name in (f"{each}.{suffix}", f"{each}.{suffix}.index.json"):
                found.add("")
            elif name.startswith(f"{each}.{suffix}.index.") and name.endswith(".json"):
                found.add(name.removeprefix(f"{each}.{suffix}.index.").removesuffix(".json"))
            elif name.endswith(f".{suffix}") and "-of-" not in name and name.startswith(f"{each}."):
                found.add(name.removeprefix(f"{each}.").removesuffix(f".{suffix}"))
    return sorted(found)


def component_variant(folder: Path, stem: str, variant: str | None) -> str | None:
    """Return the variant to use for one component: a model may have it for some only, or a component in one only.

    What is there in one variant and not plain is used as it is: nobody has a choice, and no file says what to ask for.
    """
    there = variants(folder, stem)
    return variant if variant in there else only_variant(there)


def only_variant(there: list[str]) -> str | None:
    """Return the variant that a component is there in if there is no other and no plain one."""
    return there[0] if len(there) == 1 and there[0] else None


def weight_files(folder: Path) -> list[Path]:
    """List the files of a folder that may hold weights by their names: safetensors if there are any, else pickles."""
    files = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file())
    return [entry for entry in files if entry.suffix.lower() == SUFFIXES[0]] or files
