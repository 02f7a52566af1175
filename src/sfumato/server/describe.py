"""The child that describes: the samplers there are, and what a model draws with. One JSON line for each answer.

It needs torch's modules, and seconds; so it is a process beside the server, and what it says is remembered.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sfumato.errors import RequestError, SfumatoError
from sfumato.request import Request
from sfumato.server.worker import failure
from sfumato.weights.locate import embedded_name

if TYPE_CHECKING:
    from sfumato.memory.shape import Shape
    from sfumato.model import Model
    from sfumato.request import Lora
    from sfumato.weights.opened import Opened


def digest(hashes: Mapping[str, str]) -> str:
    """One sha256 for the weights of a model, whatever files they lie in."""
    text = "".join(f"{name}:{value}\n" for name, value in sorted(hashes.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def samplers() -> dict[str, Any]:
    """The names that a request's `sampler` and `spacing` may have: those to choose from, and all others understood.

    Of all of these, what a request may ask of them.
    """
    from sfumato.diffusion import presets
    from sfumato.diffusion.scheduler_config import SCHEDULER_CLASSES
    from sfumato.diffusion.spacing import SPACINGS
    from sfumato.guides import laid_in, sampled
    from sfumato.metadata.record import A1111_SAMPLERS, A1111_SCHEDULES

    titles = {
        name: " ".join(filter(None, (A1111_SAMPLERS.get(name, name.upper()), A1111_SCHEDULES.get(each.spacing))))
        for name, each in presets.PRESETS.items()
    }
    for name in titles:
        if list(titles.values()).count(titles[name]) > 1 and name != "pndm":
            titles[name] = f"{titles[name]} ({name})"
    labels = {f"{label} {kind}" for label in presets.A1111 for kind in presets.A1111_SPACINGS}
    understood = {*presets.PRESETS, *presets.ALIASES, *presets.A1111, *labels, *SCHEDULER_CLASSES}
    kinds = {*SPACINGS, *presets.A1111_SPACINGS}  # all that `spacing_name` understands
    kinds |= {
        form for label in presets.A1111_SPACINGS for form in (label.lower().replace(" ", "_"), label.replace(" ", ""))
    }
    ways = {name: sampled(presets.preset(name)) for name in sorted(understood)}
    return {
        "samplers": [{"name": name, "title": title} for name, title in titles.items()],
        "spacings": list(SPACINGS),
        "understood": {name: asdict(way) for name, way in ways.items()},
        "understood_spacings": {
            name: {"spacing": (own := presets.spacing_name(name)), "laid": laid_in(own)} for name in sorted(kinds)
        },
    }


def card(name: str, tokenizers: Path) -> dict[str, Any]:
    """What a model is and draws with, from its headers; its weights are hashed. Its tokenizer is left in a folder."""
    from sfumato.guides import sampled, traits_of
    from sfumato.job import preset_name
    from sfumato.weights.hashing import hash_files
    from sfumato.weights.load import files_of, hollow, open_model, rules_of

    opened = open_model(None if name == embedded_name() else name)
    hashes = {part: hash_files(paths) for part, paths in files_of(opened).items()}
    family, named = opened.family, digest(hashes)
    model = hollow(replace(opened, prediction=opened.prediction or "epsilon"), name)  # a request may say which
    folder = tokenizers / named[:32]
    if not folder.exists():
        aside = tokenizers / f".{named[:32]}.{os.getpid()}"
        aside.mkdir(parents=True)
        opened.tokenizers[0].save(aside)
        aside.rename(folder)
    return {
        "name": name,
        "title": family.title,
        "family": family.name,
        "why": opened.reason,
        "size_bytes": sum(path.stat().st_size for paths in set(files_of(opened).values()) for path in paths),
        "hash": named,
        "inpainting": family.inpainting,
        "defaults": {
            "width": family.size,
            "height": family.size,
            "steps": family.steps,
            "guidance": family.guidance,
            "sampler": preset_name(model.sampling),
        },
        "prediction": opened.prediction,
        "traits": asdict(traits_of(model)),
        "sampled": asdict(sampled(model.sampling)),
        "chunks": rules_of(opened).limit,
        "tokenizer": folder.name,
    }


def looked_at(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What of a request's files does not go with its model, or with what is asked of them: the field, and why.

    Else, where its shape is told, the memory that it needs, counted until it fits into the room.
    """
    from sfumato.memory.shape import Shape
    from sfumato.named import checks
    from sfumato.text.words import named_loras
    from sfumato.weights.load import hollow
    from sfumato.wording import filled_in

    request, field, need = Request.from_dict(asked["request"]), "vae", None
    try:
        opened = open_named(request.model, request.vae, request.prediction)
        model = hollow(opened, request.model or "")
        loras = named_loras(request, filled_in(request))
        for field, check in checks(request, model, loras):  # noqa: B007
            check()
        if asked.get("shape") is not None:
            field = field if request.refiner is None else "refiner"
            need = needed(request, (opened, model), loras, Shape(**asked["shape"]), asked)
    except (SfumatoError, OSError) as error:
        own = error.field if isinstance(error, RequestError) else None
        return {"refused": {"field": own or field, "detail": failure(error).detail}, "need": None}
    return {"refused": None, "need": need}


def open_named(name: str | None, vae: str | None = None, prediction: str | None = None) -> "Opened":
    """A model and perhaps another autoencoder, by their headers. Raises the errors of loading it that these show."""
    from sfumato.weights.load import open_model

    opened = open_model(None if name == embedded_name() else name, prediction=prediction, vae=vae)
    return replace(opened, prediction=opened.prediction or "epsilon")


def needed(
    request: Request,
    opened: "tuple[Opened, Model]",
    loras: "Sequence[Lora]",
    shape: "Shape",
    asked: Mapping[str, Any],
) -> dict[str, Any] | None:
    """The memory that a request needs where it is drawn, as `sfumato.memory.need.Need`; None on a GPU."""
    from sfumato.devices import choose_device, choose_dtype
    from sfumato.memory.beside import open_beside
    from sfumato.memory.plan import need_until
    from sfumato.memory.sizes import resident
    from sfumato.weights.load import hollow
    from sfumato.weights.streamed import held_while_converting

    device = choose_device(asked.get("device"))
    if device.type != "cpu":
        return None
    every = [opened]
    if request.refiner is not None:
        second = open_named(request.refiner.model)
        every.append((second, hollow(second, request.refiner.model)))
    masked = request.mask is not None or request.outpaint is not None
    need = need_until(
        asked["room"],
        opened[1],
        shape,
        choose_dtype(asked.get("dtype"), device),
        here=resident(),
        beside=open_beside(request, opened[1], loras, every[1][1] if every[1:] else None, masked=masked),
        converting=lambda dtype: max(held_while_converting(each, dtype) for each, _ in every),
    )
    return asdict(need)


def beside() -> None:
    """A request on stdin, and what is asked of it: whether its files go with its model, and what memory it needs."""
    out = answers()
    out.write(json.dumps(looked_at(json.load(sys.stdin))) + "\n")
    out.flush()


def answers() -> IO[str]:
    """Where the answers go: stdout as it was, since what libraries print goes to stderr from here on."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return out


def main(arguments: list[str]) -> None:
    """TOKENIZERS NAME...: the samplers first, then a card for each model, or what is wrong with it."""
    tokenizers, out = Path(arguments[0]), answers()
    out.write(json.dumps({"samplers": samplers()}) + "\n")
    out.flush()
    for name in arguments[1:]:
        try:
            answer: dict[str, Any] = {"card": card(name, tokenizers), "name": name}
        except (SfumatoError, OSError) as error:
            answer = {"problem": failure(error).detail, "name": name}
        out.write(json.dumps(answer) + "\n")
        out.flush()
