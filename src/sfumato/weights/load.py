"""A name or a path becomes a Model, or one error."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch

from sfumato.errors import WeightsError
from sfumato.model import Model, autoencoder_dtype, autoencoder_order
from sfumato.nn.autoencoder import Autoencoder
from sfumato.nn.clip import TextEncoder
from sfumato.nn.unet import UNet
from sfumato.request import Embedding, Lora, checked_embeddings, checked_loras
from sfumato.text.encode import SD1, SDXL, SDXL_REFINER, TextRules, TextStack
from sfumato.weights.autoencoder_file import open_autoencoder
from sfumato.weights.build import Placement, fill
from sfumato.weights.companion import Companion
from sfumato.weights.component_files import weight_files
from sfumato.weights.embeddings import with_embeddings
from sfumato.weights.folder import open_folder
from sfumato.weights.hashing import hash_files
from sfumato.weights.locate import added_prediction, locate
from sfumato.weights.locate import embedded as embedded
from sfumato.weights.lora import with_loras
from sfumato.weights.network_config import sampling_config
from sfumato.weights.opened import Opened
from sfumato.weights.single import open_single

log = logging.getLogger(__name__)

REFINER_SIZES = 5  # size ids of a model that is told an aesthetic score instead of the target size


def load(
    name: str | Path | None = None,
    *,
    variant: str | None = None,
    vae: str | Path | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    prediction: str | None = None,
    revision: str | None = None,
    ema: bool = False,
    loras: Sequence[Lora] = (),
    embeddings: Sequence[Embedding | str | Path | tuple[str | Path, str]] = (),
) -> Model:
    """Load a model from a folder or a file on this machine; the embedded one when no name is given.

    `name`: an alias, a path, or `org/name[@revision]` in the local Hugging Face cache. `variant`: such as "fp16".
    `vae`: another autoencoder, named likewise. `dtype`: by default float32 on a CPU, and what the file has elsewhere.
    `prediction`: "epsilon", "v" or "sample", where the checkpoint does not say it or is wrong. `ema`: the averaged
    UNet of a single file. `loras`: merged into the model, as a request's. `embeddings`: files of new words, too.
    Nothing is downloaded.

    Raises ModelNotFoundError; ModelFileError for a file that is damaged or no model file; WeightsError for one that
    holds something else than the model it should be; ConfigError for options that sfumato does not have.
    """
    opened = open_model(name, variant=variant, prediction=prediction, revision=revision, ema=ema, vae=vae)
    device = torch.device(device)
    if dtype is None and device.type == "cpu":
        dtype = torch.float32
    model = read(opened, str(name) if name is not None else opened.path.name, device, dtype)
    return with_embeddings(with_loras(model, checked_loras(loras)), checked_embeddings(embeddings))


def open_model(
    name: str | Path | None = None,
    *,
    variant: str | None = None,
    prediction: str | None = None,
    revision: str | None = None,
    ema: bool = False,
    vae: str | Path | None = None,
) -> Opened:
    """Find a model and compare its files with its networks, without reading a weight. Options and errors: `load`."""
    path = embedded() if name is None else locate(name, revision)
    prediction = prediction or added_prediction(name)
    if path.is_dir():
        path = the_file(path) or path
    if path.is_dir():
        opened = open_folder(path, variant, prediction)
    else:
        opened = open_single(path, prediction, ema=ema, autoencoder_brought=vae is not None)
    return with_autoencoder(opened, vae, variant)


def with_autoencoder(opened: Opened, vae: str | Path | None, variant: str | None) -> Opened:
    """Return an opened model with another autoencoder, by its name; as it is without one. Errors: `load`'s."""
    if vae is None:
        return opened
    like = cast(Autoencoder, opened.autoencoder.part.network).config
    return replace(opened, autoencoder=open_autoencoder(locate(vae, kind="vae"), like, variant))


def the_file(folder: Path) -> Path | None:
    """Return the only weight file of a folder that is no model folder: a repository with one checkpoint."""
    if (folder / "model_index.json").is_file():
        return None
    files = weight_files(folder)
    return files[0] if len(files) == 1 else None


def read(opened: Opened, name: str, device: torch.device, dtype: torch.dtype | None) -> Model:
    """Read the weights of an opened model. All networks are there in the end, or an error is raised."""
    for note in opened.notes:
        log.info("%s: %s", opened.path, note)
    model = hollow(opened, name)
    shy = autoencoder_dtype(opened.family, model.autoencoder, dtype)
    for component in (opened.unet, *opened.text):
        fill(component.part, component.tensors, Placement(device, dtype))
    placement = Placement(device, shy, autoencoder_order(device), reorder=True)
    fill(opened.autoencoder.part, opened.autoencoder.tensors, placement)
    return model


def hollow(opened: Opened, name: str) -> Model:
    """Return an opened model without weights: its networks are on the meta device."""
    if opened.prediction is None:
        raise WeightsError(
            f"{opened.path} is {opened.family.title}, which predicts noise (512-base) or velocity (768-v), and no "
            'shape shows which. Say prediction="epsilon" or prediction="v", or put its scheduler_config.json beside it.'
        )
    unet = cast(UNet, opened.unet.part.network)
    autoencoder = cast(Autoencoder, opened.autoencoder.part.network)
    scheduler = {**opened.scheduler, "prediction_type": opened.prediction}
    text = TextStack(
        opened.tokenizers, tuple(cast(TextEncoder, each.part.network) for each in opened.text), rules_of(opened)
    )
    schedule, sampling = sampling_config(scheduler, opened.path)
    return Model(
        name=name,
        source=opened.path,
        family=opened.family,
        unet=unet,
        autoencoder=autoencoder,
        text=text,
        schedule=schedule,
        sampling=sampling,
        prediction=opened.prediction,
        scheduler=scheduler,
        options=opened.options,
        files=files_of(opened),
        hash_files=hash_files,
        notes=opened.notes,
        companion=None if opened.companion is None else Companion(opened.companion, unet.conv_in),
    )


def rules_of(opened: Opened) -> TextRules:
    """Return how a model reads its text encoders: its family's rules, and what its model_index.json changes."""
    kind = opened.family.text
    if kind in ("clip", "openclip"):
        return SD1  # SD 2.x too: its unused last layer is left out of its files, so that the penultimate is the last
    rules = SDXL if kind == "sdxl" else SDXL_REFINER
    zeros = opened.options.get("force_zeros_for_empty_prompt", True)  # diffusers' default
    scored = opened.options.get("requires_aesthetics_score", False)
    return replace(rules, zero_empty_negative=bool(zeros), sizes=REFINER_SIZES if scored else 6)


def files_of(opened: Opened) -> dict[str, tuple[Path, ...]]:
    """Return the weight files of each component; one entry, "checkpoint", for those in one file."""
    files = {name: component.tensors.paths for name, component in opened.components.items()}
    if opened.path.is_dir():
        return files
    single = (opened.path,)
    return {"checkpoint": single, **{name: paths for name, paths in files.items() if paths != single}}
