"""The files of a diffusers folder's components: whole or in shards, plain or of a variant."""

from pathlib import Path

from sfumato.errors import ModelFileError

UNET_STEM = "diffusion_pytorch_model"  # the autoencoder's too
TEXT_STEM = "model"


def find_weights(folder: Path, stem: str, variant: str | None = None) -> Path:
    """Return the weights of a component: a .safetensors file, or the index of its shards.

    Raises ModelFileError that says what is there instead: another variant, a pickle, or nothing.
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
    pickles = [name for name in present if name.endswith((".bin", ".ckpt", ".pt", ".pth"))]
    if pickles:
        raise ModelFileError(
            f"{folder}: has its weights only as a pickle, {pickles[0]}, which can run code: not supported yet; "
            "convert it to safetensors first, or get the safetensors version."
        )
    raise ModelFileError(f"{folder}: has no {wanted}; there is {', '.join(present) or 'nothing'}. Download it again.")


def candidates(folder: Path, stem: str, variant: str | None) -> tuple[Path, ...]:
    """Return the names that the weights can have, in order of preference."""
    if variant is None:
        return folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    return folder / f"{stem}.{variant}.safetensors", folder / f"{stem}.safetensors.index.{variant}.json"


def variants(folder: Path, stem: str) -> list[str]:
    """List the variants that a component is there in; "" is the plain one."""
    found = set()
    for entry in folder.glob(f"{stem}*"):
        name = entry.name
        if name in (f"{stem}.safetensors", f"{stem}.safetensors.index.json"):
            found.add("")
        elif name.startswith(f"{stem}.safetensors.index.") and name.endswith(".json"):
            found.add(name.removeprefix(f"{stem}.safetensors.index.").removesuffix(".json"))
        elif name.endswith(".safetensors") and "-of-" not in name and name.startswith(f"{stem}."):
            found.add(name.removeprefix(f"{stem}.").removesuffix(".safetensors"))
    return sorted(found)


def component_variant(folder: Path, stem: str, variant: str | None) -> str | None:
    """Return the variant to use for one component: a model may have it for some only."""
    return variant if variant in variants(folder, stem) else None
