"""What headers show of a request, looked at by a child before it is accepted: its files, and the memory it needs.

The child opens the files as the engine does, so that it refuses what the engine would; no weight is read. What passed
is remembered for as long as the files stay as they are, and so is what was counted: the child needs torch's modules,
and seconds. It is asked about memory only where that does not fit for sure.
"""

import json
import subprocess
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sfumato.errors import RequestError
from sfumato.memory.need import Need
from sfumato.memory.shape import Shape, surely_fits
from sfumato.request import Request
from sfumato.request.traits import BLENDED
from sfumato.server.catalogue import Card, states_at
from sfumato.server.problems import Problem, plain
from sfumato.server.settings import Settings
from sfumato.weights.registry import Kind

REMEMBERED = 1024
PATIENCE = 15.0  # seconds that a request waits for those before it: threads that wait are missing elsewhere
UNREAD = "the files that the request names are still being read; try again"


@dataclass(frozen=True)
class Question:
    """What is asked of a request: the names by which its answers are remembered, and its shape."""

    request: Mapping[str, Any]
    files: frozenset[str]
    memory: str
    shape: Shape
    read: int  # bytes of the files of all that is drawn with


class Beside:
    """Refuses files that do not go with a model, and what cannot fit into memory. May be called from any thread.

    `room` tells the bytes that the process that draws may take in all; None where nobody knows.
    """

    def __init__(self, settings: Settings, room: Callable[[], int | None] = lambda: None) -> None:
        self._settings, self._room = settings, room
        self._asking = threading.Lock()
        self._known = threading.Lock()
        self._passed: OrderedDict[str, None] = OrderedDict()
        self._needs: OrderedDict[str, Need | None] = OrderedDict()  # None where nothing can be told

    def check(
        self,
        request: Request,
        card: Card,
        files: Mapping[tuple[Kind, str], Path],
        shape: Shape,
        refiner: Card | None = None,
    ) -> None:
        """Raise RequestError for a file that is not for the model or cannot be read, for what its kind cannot do, ...

        ... and for a shape that does not fit into memory whatever is done. Raises Problem if the child dies.
        """
        asked = question(request, card, files, shape, refiner)
        room = self._room()
        if not self._answered(asked, room):
            # one child at a time, and the second who asks for the same finds it answered
            if not self._asking.acquire(timeout=PATIENCE):
                raise Problem(503, "model.unread", UNREAD, retry_after=5)
            try:
                if not self._answered(asked, room):
                    self._ask(asked, room)
            finally:
                self._asking.release()
        with self._known:
            need = self._needs.get(asked.memory)
        if need is not None and room is not None and need.least > room:
            field = blamed(request, shape)
            raise RequestError(f"{field}: {need.told(shape, room)}", field)

    def _answered(self, asked: Question, room: int | None) -> bool:
        with self._known:
            for key in asked.files & self._passed.keys():
                self._passed.move_to_end(key)
            if asked.files - self._passed.keys():
                return False
            if room is None or surely_fits(asked.read, asked.shape, room):
                return True
            if asked.memory not in self._needs:
                return False
            need = self._needs[asked.memory]
            return need is None or need.whole or need.least <= room

    def _ask(self, asked: Question, room: int | None) -> None:
        counts = room is not None and not surely_fits(asked.read, asked.shape, room)
        told: dict[str, Any] = {"device": self._settings.device, "dtype": self._settings.dtype, "room": room}
        told |= {"request": asked.request, "shape": asdict(asked.shape) if counts else None}
        try:
            done = subprocess.run(  # noqa: S603 - our own program
                [*self._settings.program, "beside"],
                input=json.dumps(told),
                stdout=subprocess.PIPE,
                text=True,
                timeout=self._settings.limits.describe,
            )
            answer = json.loads(done.stdout)
            refused, need = answer["refused"], answer["need"]
        except (subprocess.TimeoutExpired, ValueError, KeyError):
            raise Problem(503, "model.unread", UNREAD, retry_after=5) from None
        if refused is not None:
            raise RequestError(f"{refused['field']}: {plain(refused['detail'])}", refused["field"])
        with self._known:
            self._passed |= dict.fromkeys(asked.files)
            if counts:
                self._needs[asked.memory] = None if need is None else Need(**need)
                self._needs.move_to_end(asked.memory)
            for known in (self._passed, self._needs):
                while len(known) > REMEMBERED:
                    known.popitem(last=False)


def question(
    request: Request, card: Card, files: Mapping[tuple[Kind, str], Path], shape: Shape, refiner: Card | None = None
) -> Question:
    """What is asked: of each file what its answer depends on, and of all of them together what memory depends on."""
    states = {named: states_at(path) for named, path in files.items()}
    controls = [[each.model, each.task, each.preprocessor, each.mode] for each in request.controls]
    prompts = [[each.model, each.encoder, len(each.images)] for each in request.image_prompts]
    beside: dict[str, Any] = {"lora": request.allow_unmatched, "controlnet": [controls, prompts]}
    model = [card["name"], card["hash"], request.prediction]
    each = (json.dumps([model, kind, found, beside.get(kind)]) for (kind, _), found in states.items())
    cards = [card, *([] if refiner is None else [refiner])]
    masked = request.mask is not None or request.outpaint is not None
    masking = [masked, request.masking, *(bool(getattr(request, field)) for field in BLENDED)]
    together = [sorted(map(str, states.items())), beside, [[one["name"], one["hash"]] for one in cards], masking]
    sizes = sum(size for found in states.values() for _, size, _ in found)
    changed = card["size_bytes"] if any(kind == "lora" for kind, _ in files) else 0  # is there a second time
    return Question(
        request.to_dict() | {"model": card["name"]},
        frozenset(each),
        json.dumps([together, request.prediction, asdict(shape)]),
        shape,
        sum(one["size_bytes"] for one in cards) + changed + sizes,
    )


def blamed(request: Request, shape: Shape) -> str:
    """The field by which a request that does not fit into memory would be made to."""
    if shape.batch > 1:
        return "batch"
    if request.hires is not None:
        return "hires.size" if request.hires.size is not None else "hires.scale"
    return "width"
