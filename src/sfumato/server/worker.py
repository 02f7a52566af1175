"""The process that draws: reads jobs as JSON lines, writes what happens as JSON lines. It may be killed at any moment.

    -> {"draw": id, "attempt": n, "request": {...}, "pictures": {"sha256:...": path}, "data": path, "folder": path, ...}
    -> {"cancel": id}   {"halt": id, "wish": "skip" | "stop"}
    <- {"hello": {...}}   {"loading": ...}   {"progress": ...}   {"preview": ...}   {"picture": ...}
    <- {"end": "done" | "cancelled" | "failed", "error": {...}}

It ends when the other side of its pipes is gone. A picture is written aside and flushed; where it goes is not its own
decision. Whatever is printed by libraries goes to stderr.
"""

import base64
import io
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol

from sfumato.events import Event, Finished, Halt, Loading, Preview, Progress
from sfumato.request import Request
from sfumato.server.gallery import write_flushed
from sfumato.server.inside import open_inside
from sfumato.server.problems import Problem, as_problem
from sfumato.server.texts import prompt_loras

if TYPE_CHECKING:
    from PIL.Image import Image

    from sfumato.weights.registry import Kind

log = logging.getLogger(__name__)

PREVIEWS = 1 / 3  # seconds between two
QUALITY = 80  # of a preview's JPEG


class Artist(Protocol):
    """What the worker needs of an engine; a stub of it draws in the tests of the queue."""

    def hello(self) -> dict[str, Any]: ...

    def hash(self, request: Request) -> str: ...

    def run(self, request: Request, pictures: Mapping[str, bytes], halt: Halt) -> Iterator[Event]: ...

    def replay(self, picture: bytes, pictures: Mapping[str, bytes]) -> dict[str, Any]: ...

    def trim(self) -> None: ...


class Cancelled(Exception):
    """The job is to end now."""


class Worker:
    """Answers one line after the other; a second thread reads them, so that a cancel is seen between two steps."""

    def __init__(self, artist: Artist, lines: IO[str], out: IO[str]) -> None:
        self._artist = artist
        self._out = out
        self._jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._wishes: dict[str, Literal["skip", "stop"]] = {}
        threading.Thread(target=self._listen, args=(lines,), daemon=True).start()

    def tell(self, **message: Any) -> None:
        """Write one line, whole."""
        self._out.write(json.dumps(message, allow_nan=False) + "\n")
        self._out.flush()

    def work(self) -> None:
        """Greet, then do job after job, for ever."""
        self.tell(hello=self._artist.hello() | {"pid": os.getpid()})
        while True:
            job = self._jobs.get()
            self._do(job)
            self._cancelled.discard(job["draw"])
            self._wishes.pop(job["draw"], None)

    def _listen(self, lines: IO[str]) -> None:
        for line in lines:
            message = json.loads(line)
            if "cancel" in message:
                self._cancelled.add(message["cancel"])
            elif "halt" in message:
                self._wishes[message["halt"]] = message["wish"]
            else:
                self._jobs.put(message)
        os._exit(0)  # the server is gone: nobody would take what comes

    def _do(self, job: Mapping[str, Any]) -> None:
        try:
            if job.get("replay"):
                picture = content_of(job, job["replay"])
                if picture is None:
                    raise Problem(410, "picture.gone", "the picture that is to be made again is not there any more")
                self.tell(end="done", result=self._artist.replay(picture, pictures_of(job)))
                return
            self._draw(job)
            self.tell(end="done")
        except Cancelled:
            self.tell(end="cancelled")
        except Exception as error:
            problem = failure(error)
            if problem.status >= 500:
                log.exception("job %s failed", job["draw"])
            self.tell(end="failed", error={"code": problem.code, "detail": problem.detail, "hint": problem.hint})
            if problem.code == "out_of_memory":
                error.__traceback__ = None  # its frames hold tensors
                self._artist.trim()

    def _draw(self, job: Mapping[str, Any]) -> None:
        request = Request.from_dict(job["request"])
        stated = job.get("hash")
        if stated and (found := self._artist.hash(request)) != stated:
            raise Problem(
                409,
                "model.changed",
                f"the model's files are not those of when the job was accepted ({stated[:12]}, now {found[:12]})",
                hint="submit it again, to draw with the present ones",
            )
        check_files(job.get("files", []))
        check_loras(request, job.get("files", []))
        pictures = pictures_of(job)
        if len(pictures) < len(job.get("pictures", {})):
            raise Problem(410, "picture.gone", "a picture that the request names is not there any more")
        due = 0.0
        for event in self._artist.run(request, pictures, lambda: self._wishes.pop(job["draw"], None)):
            if job["draw"] in self._cancelled:
                raise Cancelled
            if isinstance(event, Loading):
                self.tell(loading=event.model)
            elif isinstance(event, Progress):
                self.tell(progress={"step": event.step, "steps": event.steps, "pictures": list(event.pictures)})
            elif isinstance(event, Preview) and time.monotonic() >= due:
                due = time.monotonic() + PREVIEWS
                moment = {"step": event.step, "steps": event.steps, "picture": event.pictures[0]}
                self.tell(preview=moment | {"image": data_url(event.images[0])})
            elif isinstance(event, Finished):
                self.tell(picture=written(event, Path(job["folder"]), f"{job['draw']}-{job['attempt']}-{event.index}"))


def check_files(files: "Sequence[tuple[Kind, str, str | None]]") -> None:
    """Raise Problem if a file that changes the model is not the one of when the job was accepted.

    Of a folder (None for its hash) nothing is known.
    """
    from sfumato.weights.hashing import hash_file
    from sfumato.weights.locate import locate

    for kind, name, stated in files:
        if stated is not None and hash_file(locate(name, kind=kind)) != stated:
            raise Problem(409, "file.changed", f"the {kind} {name} is another file than when the job was accepted")


def check_loras(request: Request, files: "Sequence[tuple[Kind, str, str | None]]") -> None:
    """Raise Problem for a LoRA that was not decided on when the job was accepted: wildcards and styles may change."""
    accepted = {name for kind, name, _ in files if kind == "lora"}
    for name in (*(lora.name for lora in request.loras), *prompt_loras(request)):
        if name not in accepted:
            raise Problem(
                409,
                "words.changed",
                f"the prompt names the LoRA {name[:80]!r} now, and did not when the job was accepted",
                hint="submit it again, to draw with the present wildcards and styles",
            )


def pictures_of(job: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of the pictures that a request names, as far as they are there and are no links."""
    found = ((name, content_of(job, place)) for name, place in job.get("pictures", {}).items())
    return {name: content for name, content in found if content is not None}


def content_of(job: Mapping[str, Any], place: str) -> bytes | None:
    """The bytes of a file of the server's, None if it is not there or a link."""
    try:
        with open_inside(Path(job["data"]), Path(place)) as file:
            return file.read()
    except OSError:
        return None


def written(event: Finished, folder: Path, name: str) -> dict[str, Any]:
    """A finished picture as a flushed file in `folder`, and what is to be known of it."""
    from PIL.PngImagePlugin import PngInfo

    from sfumato.metadata import CHUNK, PARAMETERS, pixels_digest

    picture, texts = event.picture, PngInfo()
    for key in (PARAMETERS, CHUNK):
        if key in picture.info:
            texts.add_text(key, picture.info[key])
    plain = picture.copy()
    plain.info = {}
    buffer = io.BytesIO()
    plain.save(buffer, "PNG", pnginfo=texts)
    place = write_flushed(folder / f"{name}.png", buffer.getvalue())
    return {
        "index": event.index,
        "seed": event.seed,
        "file": place.name,
        "sha256": pixels_digest(picture),
        "width": picture.width,
        "height": picture.height,
        "prompt": event.request.prompts[event.index // event.request.count],
        "record": json.loads(picture.info.get(CHUNK, "{}")),
    }


def data_url(image: "Image") -> str:
    """A small picture as a URL that holds it."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def failure(error: Exception) -> Problem:
    """What went wrong, as the job says it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing it
        return as_problem(MemoryError("the memory was not enough for this picture"))
    if isinstance(error, OSError) and error.errno in (28, 122):  # ENOSPC, EDQUOT
        return Problem(507, "disk.full", "there is no room on the disk for the picture", hint="free some space, retry")
    return as_problem(error)


class EngineArtist:
    """The engine, as the worker uses it."""

    def __init__(self, device: str | None, dtype: str | None) -> None:
        from sfumato.allocator import keep_freed_memory
        from sfumato.engine import Engine

        keep_freed_memory()
        self._engine = Engine(device, dtype)

    def hello(self) -> dict[str, Any]:
        """The device and the precision."""
        dtype = self._engine.dtype
        return {
            "device": str(self._engine.device),
            "dtype": "that of the model's files" if dtype is None else str(dtype).removeprefix("torch."),
        }

    def hash(self, request: Request) -> str:
        """What names the weights of the request's model; it is loaded for that."""
        from sfumato.server.describe import digest

        return digest(self._engine.model(request.model, request.vae, prediction=request.prediction).hashes)

    def run(self, request: Request, pictures: Mapping[str, bytes], halt: Halt) -> Iterator[Event]:
        """The events of a request whose pictures are named by their pixels."""
        if not self._engine.is_loaded(request.model, request.vae, request.prediction):
            yield Loading(request.model or "the embedded model")
        yield from self._engine.run(
            request,
            pictures=dict(pictures),
            preview_every=1,
            halt=halt,
        )

    def replay(self, picture: bytes, pictures: Mapping[str, bytes]) -> dict[str, Any]:
        """Make a picture again and say what came of it."""
        from sfumato.replay import replay

        verdict = replay(picture, engine=self._engine, pictures=dict(pictures))
        outcome = {"environment changed": "changed", "missing weight": "missing", "missing picture": "missing"}
        return {"outcome": outcome.get(verdict.outcome, verdict.outcome), "detail": verdict.message}

    def trim(self) -> None:
        """Let go of all models, and of the memory that is kept for more."""
        self._engine.forget()


def serve(artist: Callable[[], Artist]) -> None:
    """Be a worker on this process's own stdin and stdout."""
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", level=logging.INFO)
    for wanted in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wanted, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the server too, which decides
    die_with_parent()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    Worker(artist(), sys.stdin, out).work()


def die_with_parent() -> None:
    """Ask the kernel for a SIGKILL when the server dies, where it knows that (Linux)."""
    import ctypes

    try:
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        return


def main(arguments: list[str]) -> None:
    """`draw [DEVICE [DTYPE]]`, `describe NAME...` or `beside`, with an empty text for what is not chosen."""
    if arguments[0] in ("describe", "beside"):
        from sfumato.server import describe

        if arguments[0] == "describe":
            describe.main(arguments[1:])
        else:
            describe.beside()
        return
    device, dtype = (each or None for each in [*arguments[1:], "", ""][:2])
    serve(lambda: EngineArtist(device, dtype))


if __name__ == "__main__":
    main(sys.argv[1:])
