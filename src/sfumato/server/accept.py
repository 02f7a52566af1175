"""What is decided when a request is accepted: all that its pictures depend on, so that they can be made again."""

from collections.abc import Callable
from typing import Any

from sfumato.errors import RequestError
from sfumato.request import Defaults, Request, fill
from sfumato.server.catalogue import Catalogue
from sfumato.server.problems import Problem
from sfumato.weights.hashing import hash_file
from sfumato.weights.locate import locate

PICTURE_FIELDS = ("image", "mask")  # what names a picture by its pixels
FILE_FIELDS = ("vae",)  # what names a file of the registry
NAMED_FILES = ("loras", "embeddings")  # lists of things that have a `name` of the registry

SizeOf = Callable[[str], tuple[int, int]]
"""The size of a picture that is known here. Raises Problem for another."""


def accept(request: Request, catalogue: Catalogue, size_of: SizeOf) -> tuple[Request, dict[str, Any]]:
    """The request with everything decided, and what the worker must know beside it.

    Names are those of the registry, pictures are known by their pixels: no text of a client becomes a path.
    Raises RequestError and Problem.
    """
    card = catalogue.card(request.model)
    check_names(request, catalogue)
    sizes = {
        field: known_size(id, field, size_of) for field in PICTURE_FIELDS if (id := getattr(request, field)) is not None
    }
    steering = steering_pictures(request)
    for field, id in steering:
        known_size(id, field, size_of)
    check_together(request, sizes)
    stated = card["defaults"]
    defaults = Defaults(
        name=card["name"],
        size=stated["width"],
        steps=stated["steps"],
        guidance=stated["guidance"],
        sampler=stated["sampler"],
    )
    work = {
        "ids": [*(getattr(request, field) for field in sizes), *(id for _, id in steering)],
        "hash": None if request.vae else card["hash"],
        "files": file_hashes(request),
        "total": request.total,
    }
    return fill(request, defaults, sizes.get("image")), work


def known_size(id: str, field: str, size_of: SizeOf) -> tuple[int, int]:
    """The size of a picture that a field names. Raises RequestError if it is not known here."""
    try:
        if id.startswith("sha256:"):
            return size_of(id)
    except Problem:
        pass
    raise RequestError(f"{field} is {id[:80]!r}, which is no picture here; upload it, and give the id it gets", field)


def steering_pictures(request: Request) -> list[tuple[str, str]]:
    """The pictures that controls and image prompts name, each with its field."""
    controls = [("controls", each.image) for each in request.controls if each.image is not None]
    return controls + [("image_prompts", id) for each in request.image_prompts for id in each.images]


def check_together(request: Request, sizes: dict[str, tuple[int, int]]) -> None:
    """Raise RequestError for fields that need another one."""
    for field, given in (("mask", request.mask is not None), ("strength", request.strength is not None)):
        if given and request.image is None:
            raise RequestError(f"{field} is given but no image; give a start image", field)
    if request.mask_blur is not None and request.mask is None:
        raise RequestError(f"mask_blur is {request.mask_blur} but there is no mask; give a mask", "mask_blur")
    if "mask" in sizes and sizes["mask"] != sizes["image"]:
        (w, h), (image_w, image_h) = sizes["mask"], sizes["image"]
        raise RequestError(f"mask is {w}x{h} and the image {image_w}x{image_h}; they must be of one size", "mask")


def check_names(request: Request, catalogue: Catalogue) -> None:
    """Raise RequestError for names that the worker could not find, and for places that are not names."""
    facts = catalogue.samplers()
    choice = ", ".join(each["name"] for each in facts["samplers"])
    for field, known, shown, asked in (
        ("sampler", facts["understood"], choice, request.sampler),
        ("spacing", facts["understood_spacings"], ", ".join(facts["spacings"]), request.spacing),
    ):
        if asked is not None and asked not in known and asked.lower() not in known:
            raise RequestError(f"{field} {asked[:80]!r} is not known; known are {shown}", field)
    for field, name in named(request):
        if name not in catalogue.known():
            told = f"{field} has {name[:80]!r}, which is no name here; `sfumato models add` names files"
            raise RequestError(told, field)


def named(request: Request) -> list[tuple[str, str]]:
    """The files that a request names, each with its field."""
    single = [(field, getattr(request, field)) for field in FILE_FIELDS]
    several = [(field, each.name) for field in NAMED_FILES for each in getattr(request, field)]
    networks = [("controls", each.model) for each in request.controls]
    networks += [
        ("image_prompts", name) for each in request.image_prompts for name in (each.model, each.encoder) if name
    ]
    if request.refiner is not None:
        networks.append(("refiner", request.refiner.model))
    return [(field, name) for field, name in [*single, *several, *networks] if name is not None]


def file_hashes(request: Request) -> dict[str, str]:
    """What shows whether the files that change a model are still the same when the job is drawn."""
    places = {name: locate(name) for _, name in named(request)}
    return {name: hash_file(place) for name, place in places.items() if place.is_file()}
