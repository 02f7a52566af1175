"""Makes a picture again from what its metadata says, and tells whether it came out the same."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from sfumato.engine import Engine
from sfumato.errors import ModelNotFoundError, PictureError
from sfumato.events import Finished, Progress
from sfumato.generation import as_it_is, batches, draw, environment
from sfumato.images import NO_PICTURES, Pictures, PictureSource, open_picture, to_mask, to_rgb
from sfumato.job import Job, prepare
from sfumato.metadata import FORMAT, Description, describe, pixels_digest
from sfumato.model import COMPANION, Model
from sfumato.request import Request
from sfumato.request.said import read_said
from sfumato.text.words import alike_loras

Outcome = Literal["identical", "differs", "environment changed", "missing weight", "missing picture"]


@dataclass(frozen=True)
class Verdict:
    """What came of a replay.

    identical            the pixels have the recorded sha256
    differs              they do not, though nothing else is known to have changed
    environment changed  they do not, and `changes` names what is not as recorded
    missing weight       the model is not there, or has other weights
    missing picture      the start picture or the mask is not there

    `largest` and `mean` are the differences to the pixels in the file, in 0..255 (None where sizes differ); `lossy`
    says that the file's format has changed its pixels too. `picture` is None where something was missing.
    """

    outcome: Outcome
    message: str
    picture: Image.Image | None = None
    largest: int | None = None
    mean: float | None = None
    lossy: bool = False
    changes: tuple[str, ...] = ()


def replay(
    picture: str | os.PathLike[str] | bytes,
    *,
    engine: Engine | None = None,
    model: str | None = None,
    image: PictureSource | None = None,
    mask: PictureSource | None = None,
    pictures: Pictures = NO_PICTURES,
    verify: bool = True,
) -> Verdict:
    """Makes a picture of sfumato again, in the batch that it was made in, and compares.

    `picture` is a path, or the bytes of a file. `model` names the weights where they are now, if they have moved.
    Pictures that it was made from and that are not handed over (by their digests in `pictures`) are looked for beside
    a path, by their pixels. Without `verify`, other weights and inputs are used as they are. Raises PictureError if the
    file is no picture of sfumato, and what `Engine.run` raises.
    """
    found = describe(picture)
    record, request = found.record, found.request
    place = None if isinstance(picture, bytes) else Path(picture)
    if record is None or request is None:
        raise PictureError(f"{place or 'the picture'} {_why_not(found)}")
    if record.get("format") != FORMAT:
        found_format = record.get("format")
        raise PictureError(f"{place or 'the picture'} has metadata of format {found_format}; this is {FORMAT}")
    engine = engine or Engine()
    said = read_said(record)
    try:
        weights = engine.model_for(replace(request, model=model or request.model), record["index"], said)
    except ModelNotFoundError as error:
        return Verdict("missing weight", str(error))
    request = _masked_as(request, weights, verify=verify)
    other = _other_weights(record, weights)
    if verify and other:
        return Verdict(
            "missing weight", f"the model {weights.name} has other weights: {'; '.join(other)}", changes=other
        )
    given = {"image": image, "mask": mask}
    found_pictures: dict[str, PictureSource] = {}
    for name, digest in record["inputs"].items():
        source = given.get(name) or pictures.get(digest) or (place and _beside(place, digest, name))
        if source is None:
            where = "there any more" if place is None else "beside it"
            return Verdict("missing picture", f"the {name} that it was made from ({digest}) is not {where}")
        found_pictures[digest] = source
    if said:  # those that it was drawn with; of the others it is not known what was said
        together = range(min(said), max(said) + 1)
    else:
        together = next(run for run, _ in alike_loras(request) if record["index"] in run)
    job = prepare(weights, request, pictures=found_pictures, only=together, said=said)
    if verify and job.inputs != record["inputs"]:
        return Verdict("missing picture", "a picture is not the one that it was made from")
    changes = other + _other_environment(record, weights, job.request)
    return _compare(picture, record, _again(job, record["index"], record.get("halted_at")), changes)


def _why_not(found: Description) -> str:
    """Why there is nothing to make a picture again from."""
    if found.tool != "sfumato":
        by = f" but by {found.tool}" if found.tool else ", or without metadata"
        return f"was not made by sfumato{by}; only sfumato's own can be replayed"
    if "Script" in found.settings:
        return (
            "is the sheet of a grid, and no picture that was drawn; replay the pictures of its cells, which were "
            "written with it"
        )
    return (
        "was made by sfumato, but of what it said only the text `parameters` is left; a replay needs `sfumato` too, "
        "which the picture has as it was first written"
    )


def _masked_as(request: Request, model: Model, *, verify: bool) -> Request:
    """The request as it was drawn by a model that has a companion now and had none then, or the other way round."""
    masked = request.mask is not None or request.outpaint is not None
    if masked and request.masking is None and model.companion is not None:
        return replace(request, masking="blend")  # a picture that a companion drew says so
    if request.masking is not None and model.companion is None and not verify:
        return replace(request, masking=None)
    return request


def _other_weights(record: Mapping[str, Any], model: Model) -> tuple[str, ...]:
    recorded, here = record["model"]["hashes"], model.hashes
    if COMPANION in recorded and model.companion is not None and model.hash_files is not None:
        here = {**here, COMPANION: model.hash_files(model.companion.files)}
    return tuple(
        f"{name} was {str(recorded.get(name))[:12]}, is {str(here.get(name))[:12]}"
        for name in sorted({*recorded, *here})
        if recorded.get(name) != here.get(name)
    )


def _other_environment(record: Mapping[str, Any], model: Model, request: Request) -> tuple[str, ...]:
    recorded, here = record["environment"], environment(model, request)
    return tuple(
        f"{name} was {recorded.get(name)}, is {here.get(name)}" for name in here if recorded.get(name) != here.get(name)
    )


def _beside(picture: Path, digest: str, name: str) -> Path | None:
    """The picture in the same folder whose upright pixels have this digest."""
    read = to_mask if name.endswith("mask") else to_rgb
    for path in sorted(picture.absolute().parent.iterdir()):
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            continue
        try:
            if f"sha256:{pixels_digest(read(open_picture(path)))}" == digest:
                return path
        except PictureError:
            continue
    return None


def _again(job: Job, index: int, halted_at: int | None) -> Image.Image:
    """Picture `index` of the job, drawn together with those that it was drawn with, and as far."""
    for batch in batches(job):
        if index in batch.pictures:
            for event in draw(job, batch, metadata=True):
                reached = [event] if isinstance(event, Finished) else []
                if isinstance(event, Progress) and event.step == halted_at:
                    reached = list(as_it_is(job, event))
                for finished in reached:
                    if finished.index == index:
                        return finished.picture
    raise PictureError(f"the metadata speaks of picture {index} of a request of {job.request.total}")


def _compare(
    picture: str | os.PathLike[str] | bytes, record: Mapping[str, Any], again: Image.Image, changes: tuple[str, ...]
) -> Verdict:
    source = io.BytesIO(picture) if isinstance(picture, bytes) else picture
    with Image.open(source, formats=("PNG", "JPEG", "WEBP")) as opened:
        lossy = opened.format == "JPEG"
        stored = opened.convert("RGB")
    told = f" Not as recorded: {'; '.join(changes)}." if changes else ""
    edited = not lossy and pixels_digest(stored) != record["pixels"]["sha256"]
    if edited:
        told = f" The file was edited since it was made.{told}"
    if pixels_digest(again) == record["pixels"]["sha256"]:
        same = "identical to what was recorded" if edited else "identical"
        return Verdict("identical", f"{same}, to the byte.{told}", again, 0, 0.0, lossy, changes)
    outcome: Outcome = "environment changed" if changes else "differs"
    if stored.size != again.size:
        message = f"{outcome}: the file is {stored.width}x{stored.height} now.{told}"
        return Verdict(outcome, message, again, lossy=lossy, changes=changes)
    difference = np.abs(np.asarray(stored).astype(int) - np.asarray(again).astype(int))
    largest, mean = int(difference.max()), float(difference.mean())
    message = f"{outcome}: by at most {largest}/255, {mean:.3g}/255 on average.{told}"
    return Verdict(outcome, message, again, largest, mean, lossy, changes)
