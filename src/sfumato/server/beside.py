"""What a request names beside its model, looked at by a child before the request is accepted.

The child opens the files as the engine does, so that it refuses what the engine would; no weight is read. What passed
is remembered for as long as the files stay as they are: the child needs torch's modules, and seconds.
"""

import json
import subprocess
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato.errors import RequestError
from sfumato.request import Request
from sfumato.server.catalogue import Card, states_at
from sfumato.server.problems import Problem, plain
from sfumato.server.settings import Settings
from sfumato.weights.registry import Kind

PARTS = ("vae", "loras", "embeddings", "controls", "image_prompts", "hires", "allow_unmatched")
"""The fields of a request that name files, or say what is asked of them."""

REMEMBERED = 1024


class Beside:
    """Refuses files that do not go with a model. May be called from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._program, self._seconds = settings.program, settings.limits.describe
        self._asking = threading.Lock()
        self._passed: OrderedDict[str, None] = OrderedDict()

    def check(self, request: Request, card: Card, files: Mapping[tuple[Kind, str], Path]) -> None:
        """Raise RequestError for a file that is not for the model or cannot be read, or for what its kind cannot do.

        A LoRA's safetensors header has been looked at before, so that one needs no child. Raises Problem if it dies.
        """
        if all(kind == "lora" and path.suffix == ".safetensors" for (kind, _), path in files.items()):
            return
        asked = request.to_dict()
        states = sorted([kind, name, states_at(path)] for (kind, name), path in files.items())
        key = json.dumps([card["name"], card["hash"], {name: asked.get(name) for name in PARTS}, states])
        with self._asking:  # one child at a time, and the second who asks for the same finds it passed
            if key not in self._passed:
                self._ask(asked | {"model": card["name"]})
            self._passed[key] = None
            self._passed.move_to_end(key)
            while len(self._passed) > REMEMBERED:
                self._passed.popitem(last=False)

    def _ask(self, asked: Mapping[str, Any]) -> None:
        try:
            done = subprocess.run(  # noqa: S603 - our own program
                [*self._program, "beside"],
                input=json.dumps(asked),
                stdout=subprocess.PIPE,
                text=True,
                timeout=self._seconds,
            )
            refused = json.loads(done.stdout)["refused"]
        except (subprocess.TimeoutExpired, ValueError, KeyError):
            told = "the files that the request names are still being read; try again"
            raise Problem(503, "model.unread", told, retry_after=5) from None
        if refused is not None:
            raise RequestError(f"{refused['field']}: {plain(refused['detail'])}", refused["field"])
