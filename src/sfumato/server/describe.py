"""The child that describes: the samplers there are, and what a model draws with. One JSON line for each answer.

It needs torch's modules, and seconds; so it is a process beside the server, and what it says is remembered.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from sfumato.errors import ModelNotFoundError, RequestError, SfumatoError
from sfumato.request import Request
from sfumato.server.worker import failure


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


def embedded_name() -> str | None:
    """The name of the model in the package, if this installation has one."""
    from sfumato.weights.locate import embedded

    try:
        return embedded().name
    except ModelNotFoundError:
        return None


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


def refused(request: Request) -> dict[str, str] | None:
    """What of a request's files does not go with its model, or with what is asked of them: the field, and why."""
    from sfumato.named import checks
    from sfumato.text.words import named_loras
    from sfumato.weights.load import hollow, open_model
    from sfumato.wording import filled_in

    field = "vae"
    try:
        name = None if request.model == embedded_name() else request.model
        opened = open_model(name, prediction=request.prediction, vae=request.vae)
        model = hollow(replace(opened, prediction=opened.prediction or "epsilon"), request.model or "")
        for field, check in checks(request, model, named_loras(request, filled_in(request))):  # noqa: B007
            check()
    except (SfumatoError, OSError) as error:
        own = error.field if isinstance(error, RequestError) else None
        return {"field": own or field, "detail": failure(error).detail}
    return None


def beside() -> None:
    """A request on stdin: whether its files go with its model."""
    out = answers()
    found = refused(Request.from_dict(json.load(sys.stdin)))
    out.write(json.dumps({"refused": found}) + "\n")
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
