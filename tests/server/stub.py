"""A worker without torch: pixels from the seed and the prompt, in milliseconds. Words of the prompt make it misbehave.

`slow` takes 0.05 s a step; `deaf` does not come back between steps; `crash` dies by a signal; `crash-once FILE` dies
the first time; `broken` raises; `full` has no room; `memory` has none either. `unfit-FIELD` has what is beside refused.
"""

import errno
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.append(str(Path(__file__).parents[1]))  # it is run by its path
from sfumato.events import Event, Finished, Halt, Preview, Progress
from sfumato.memory.need import Need
from sfumato.metadata import Provenance, make_record, stamp
from sfumato.request import Request
from sfumato.request.traits import Sampled
from sfumato.server.worker import serve
from sfumato.weights.locate import embedded
from traits import SD1

HASH = "5" * 64
TRAITS = replace(SD1, title="a stub", context=64, layers=SD1.layers[1:])


def sampled(name: str, *, eta: bool = True) -> dict[str, Any]:
    return asdict(Sampled(name, eta, plus_plus=False, spacing="leading", laid="timesteps"))


def pixels(prompt: str, seed: int, width: int, height: int, inputs: str = "") -> bytes:
    """What the stub draws: as good as the sha256 of all that it depends on."""
    key = hashlib.sha256(f"{prompt}\n{seed}\n{width}x{height}\n{inputs}".encode()).digest()
    return random.Random(key).randbytes(width * height * 3)


class Stub:
    """Draws without a model."""

    def hello(self) -> dict[str, Any]:
        return {"device": "cpu", "dtype": "none"}

    def hash(self, request: Request) -> str:
        return HASH

    def run(self, request: Request, pictures: Mapping[str, bytes], halt: Halt) -> Iterator[Event]:
        assert request.steps and request.width and request.height and request.seed is not None
        given = [Image.open(io.BytesIO(pictures[id])) for id in (request.image, request.mask) if id]
        inputs = "".join(hashlib.sha256(each.tobytes()).hexdigest() for each in given)
        wish = None
        for index in range(request.total):
            if wish == "stop":
                return
            wish = None
            prompt = request.prompts[index // request.count]
            for step in range(1, request.steps + 1):
                misbehave(prompt)
                yield Progress(step, request.steps, 0.0, None, (index,))
                wish = halt() or wish
                if wish:
                    break
                yield Preview(step, request.steps, (Image.new("RGB", (4, 4)),), (index,))
            size = (request.width, request.height)
            picture = Image.frombytes("RGB", size, pixels(prompt, request.seed + index, *size, inputs))
            provenance = Provenance(request.model or "", "stub", {"stub": HASH}, {"sfumato": "stub"})
            stamp(picture, make_record(request, index, picture, provenance))
            yield Finished(index, request.seed + index, picture, request)

    def replay(self, picture: bytes, pictures: Mapping[str, bytes]) -> dict[str, Any]:
        with Image.open(io.BytesIO(picture)) as opened:
            return {"outcome": "identical", "detail": f"{opened.width}x{opened.height} was looked at"}

    def trim(self) -> None:
        pass


def misbehave(prompt: str) -> None:
    words = prompt.split()
    if "slow" in words:
        time.sleep(0.05)
    if "deaf" in words:
        time.sleep(60)
    if "crash" in words:
        os.kill(os.getpid(), signal.SIGKILL)
    if "crash-once" in words:
        mark = Path(words[words.index("crash-once") + 1])
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGSEGV)
    if "broken" in words:
        raise ZeroDivisionError("in /home/somebody/secret.py")
    if "full" in words:
        raise OSError(errno.ENOSPC, "No space left on device")
    if "memory" in words:
        raise MemoryError


def needed(shape: Mapping[str, Any]) -> dict[str, Any]:
    """What a stub of a plan takes: more than any machine has for what is not sure to fit."""
    most = shape["width"] * shape["height"] * shape["batch"] * 2**16
    return asdict(Need(2 * most, most, "tiles"))


def describe(tokenizers: Path, names: list[str]) -> None:
    """What `sfumato.server.describe` says, for a model of 64 pixels that the embedded one lends its tokenizer."""
    samplers = {
        "samplers": [{"name": "ddim", "title": "DDIM"}, {"name": "euler", "title": "Euler"}],
        "spacings": ["leading", "karras"],
        "understood": {
            **{name: sampled("euler") for name in ("DDIM", "ddim", "euler", "k_euler", "Euler", "Euler a")},
            **{name: sampled("other", eta=False) for name in ("DPM++ 2M", "PLMS")},
        },
        "understood_spacings": {
            **{name: {"spacing": "leading", "laid": "timesteps"} for name in ("leading", "normal")},
            **{name: {"spacing": "karras", "laid": "sigma"} for name in ("karras", "Karras")},
        },
    }
    print(json.dumps({"samplers": samplers}))
    folder = tokenizers / "stub"
    if not folder.exists():
        shutil.copytree(embedded() / "tokenizer", folder)
    for name in names:
        defaults = {"width": 64, "height": 64, "steps": 2, "guidance": 2.5, "sampler": "ddim"}
        card = {"name": name, "title": "a stub", "family": "stub", "why": "", "size_bytes": 1, "hash": HASH}
        card |= {"inpainting": False, "defaults": defaults, "chunks": None, "tokenizer": "stub"}
        card |= {"prediction": "epsilon", "sampled": sampled("euler"), "traits": asdict(replace(TRAITS, name=name))}
        print(json.dumps({"card": card, "name": name}))


if __name__ == "__main__":
    if sys.argv[1] == "describe":
        describe(Path(sys.argv[2]), sys.argv[3:])
    elif sys.argv[1] == "beside":
        asked = json.load(sys.stdin)
        words = Request.from_dict(asked["request"]).prompts[0].split()
        unfit = next((word.removeprefix("unfit-") for word in words if word.startswith("unfit-")), None)
        need = asked["shape"] and needed(asked["shape"])
        print(json.dumps({"refused": unfit and {"field": unfit, "detail": "/home/me/x.pt does not fit"}, "need": need}))
    else:
        serve(Stub)
