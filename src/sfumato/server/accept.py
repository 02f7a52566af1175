"""What is decided when a request is accepted: all that its pictures depend on, so that they can be made again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sfumato.admission import admit
from sfumato.errors import ModelNotFoundError, RequestError
from sfumato.memory.shape import shape_of
from sfumato.request import Defaults, Request
from sfumato.request.filling import draw_seed
from sfumato.request.pictures import LATENT_UPSCALERS, PIXEL_UPSCALERS
from sfumato.request.traits import Traits
from sfumato.server.beside import Beside
from sfumato.server.catalogue import Card, Catalogue
from sfumato.server.headers import check_file
from sfumato.server.problems import Problem
from sfumato.server.texts import texts
from sfumato.weights.adopted import entries
from sfumato.weights.hashing import hash_file
from sfumato.weights.known import known
from sfumato.weights.locate import locate, registry
from sfumato.weights.registry import Kind
from sfumato.weights.titles import match
from sfumato.wording import filled_in

BUILT_IN = (*LATENT_UPSCALERS, *PIXEL_UPSCALERS)

SizeOf = Callable[[str], tuple[int, int]]
"""The size of a picture that is known here. Raises Problem for another."""


@dataclass
class Found:
    """What the texts of a request lead to: the sizes of pictures by their ids, the files of names and their fields."""

    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    files: dict[tuple[Kind, str], Path] = field(default_factory=dict)
    fields: dict[tuple[Kind, str], str] = field(default_factory=dict)


def accept(request: Request, catalogue: Catalogue, beside: Beside, size_of: SizeOf) -> tuple[Request, dict[str, Any]]:
    """The request with everything decided, and what the worker must know beside it.

    Names are those of the registry, pictures are known by their pixels: no text of a client becomes a path.
    Raises RequestError and Problem.
    """
    if request.seed is None:
        request = replace(request, seed=draw_seed())  # what is drawn in its prompts depends on it
    found = Found()
    for place, role, text in texts(request):
        name = place.partition("[")[0].partition(".")[0]
        if role == "picture":
            found.sizes[text] = known_size(text, name, size_of)
        elif role in ("sampler", "spacing"):
            check_choice(text, name, role, catalogue.samplers())
        elif role not in ("words", "model"):
            files = named_file(role, text, name)  # type: ignore[arg-type]  # what is left are kinds
            found.files |= files
            found.fields |= dict.fromkeys(files, name)
        elif role == "model":
            check_model(text, name, catalogue)
    check_sizes(request, found.sizes)
    card = catalogue.card(request.model)
    if card["prediction"] is None and request.prediction is None:
        told = f"{card['name']} does not say whether it predicts noise or velocity; prediction must be epsilon or v"
        raise RequestError(told, "prediction")
    traits = Traits.from_dict(card["traits"])
    for (kind, name), path in found.files.items():
        check_file(kind, name, path, found.fields[kind, name], traits.context)
    refiner = None if request.refiner is None else catalogue.card(request.refiner.model)
    start = found.sizes.get(request.image or "")
    resolved = admit(
        replace(request, model=card["name"]),
        defaults_of(card),
        traits,
        lambda sampler, spacing: catalogue.sampled(card["name"], sampler, spacing),
        start=start,
        mask=request.mask is not None,
        refiner=None if refiner is None else Traits.from_dict(refiner["traits"]),
    )
    shape = shape_of(resolved, defaults_of(card), start, filled_in(resolved))
    beside.check(resolved, card, found.files, shape, refiner)
    hashes = [[kind, name, hash_file(path) if path.is_file() else None] for (kind, name), path in found.files.items()]
    work = {
        "ids": list(found.sizes),
        "hash": None if request.vae else card["hash"],
        "files": hashes,
        "total": request.total,
    }
    return resolved, work


def defaults_of(card: Card) -> Defaults:
    """What a model draws with where a request does not say."""
    stated = card["defaults"]
    return Defaults(
        name=card["name"],
        size=stated["width"],
        steps=stated["steps"],
        guidance=stated["guidance"],
        sampler=stated["sampler"],
        instructed=card["traits"]["instructed"],
    )


def check_model(text: str, name: str, catalogue: Catalogue) -> None:
    """Raise RequestError, of the field that has it, for the name of a model that there is not; Problem for others."""
    try:
        catalogue.card(text)
    except Problem as problem:
        if problem.code != "request.model" or name == "model":
            raise
        raise RequestError(f"{name}: {problem.detail}", name) from None


def known_size(id: str, name: str, size_of: SizeOf) -> tuple[int, int]:
    """The size of a picture that a field names. Raises RequestError if it is not known here."""
    try:
        if id.startswith("sha256:"):
            return size_of(id)
    except Problem:
        pass
    raise RequestError(f"{name} is {id[:80]!r}, which is no picture here; upload it, and give the id it gets", name)


def check_choice(text: str, name: str, role: str, facts: Mapping[str, Any]) -> None:
    """Raise RequestError for a sampler or a spacing that is not understood."""
    understood = facts["understood" if role == "sampler" else "understood_spacings"]
    if text in understood or text.lower() in understood:
        return
    shown = [each["name"] for each in facts["samplers"]] if role == "sampler" else facts["spacings"]
    raise RequestError(f"{role} {text[:80]!r} is not known; known are {', '.join(shown)}", name)


def named_file(kind: Kind, text: str, name: str) -> dict[tuple[Kind, str], Path]:
    """The file of a name of the registry, or none for what needs no file. Raises RequestError for any other text."""
    if kind == "upscaler" and text in BUILT_IN:
        return {}
    added = registry()
    if text in added.aliases or text in {each.name for each in known(kind)} or _titled(text, kind):
        try:
            return {(kind, text): locate(text, kind=kind)}
        except ModelNotFoundError:
            pass
    told = f"{name} has {text[:80]!r}, which is no {kind}'s name here; `sfumato models add` gives a file one"
    raise RequestError(told, name)


def _titled(text: str, kind: Kind) -> bool:
    try:
        return match(text, list(entries(registry().folders, kind))) is not None
    except ModelNotFoundError:
        return False


def check_sizes(request: Request, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Raise RequestError for a mask of another size than its picture."""
    if request.mask is None or request.image is None:
        return
    (width, height), (image_width, image_height) = sizes[request.mask], sizes[request.image]
    if (width, height) != (image_width, image_height):
        told = f"mask is {width}x{height} and the image {image_width}x{image_height}; they must be of one size"
        raise RequestError(told, "mask")
