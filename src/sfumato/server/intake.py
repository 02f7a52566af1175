"""Pictures from outside: decoded by a child, kept as files that we wrote ourselves, named by their pixels."""

import hashlib
import json
import os
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sfumato.confined import environment, program
from sfumato.server.decode import PIXELS, SIDE
from sfumato.server.png import CHANNELS, encode
from sfumato.server.problems import Problem
from sfumato.weights.writing import flush

AT_ONCE = 2  # children; each may take a gibibyte for a moment
LINE = 2**20  # bytes of what a child says before the pixels


@dataclass(frozen=True)
class Decoded:
    """A picture that was read: where its file lies now, the sha256 of its pixels, and what else is known of it."""

    place: Path
    pixels: str
    width: int
    height: int
    mode: str
    reading: dict[str, Any] | None


class Intake:
    """Decodes pictures into a folder, a few at a time."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder, self._seconds = folder, seconds
        self._turns = threading.BoundedSemaphore(AT_ONCE)

    def read(self, content: bytes) -> dict[str, Any] | None:
        """What a picture's metadata says. Raises Problem for what is no picture that is taken."""
        decoded = self.decode(content)
        decoded.place.unlink()
        return decoded.reading

    def decode(self, content: bytes, wanted: Mapping[str, Any] | None = None) -> Decoded:
        """The picture in a file's bytes, as a new flushed file `*.part` that is the caller's from here on.

        `wanted` has it turned into what a control network sees (`sfumato.server.decode.seen`), in the child too.
        Raises Problem: 415 for what is no picture, 413 for a too large one, 422 for a damaged one.
        """
        if not content:
            raise Problem(422, "picture.empty", "the body is empty; it must be a picture")
        if not self._turns.acquire(timeout=self._seconds):
            raise Problem(503, "busy", "too many pictures are being read; try again", retry_after=2)
        try:
            return self._decode(content, () if wanted is None else (json.dumps(wanted),))
        finally:
            self._turns.release()

    def _decode(self, content: bytes, arguments: tuple[str, ...]) -> Decoded:
        child = subprocess.Popen(  # noqa: S603 - our own program
            program("sfumato.server.decode", *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            cwd="/",
        )
        assert child.stdin is not None and child.stdout is not None
        watch = threading.Timer(self._seconds, child.kill)
        watch.start()
        feeder = threading.Thread(target=_feed, args=(child.stdin, content), daemon=True)
        feeder.start()
        try:
            return self._take(child.stdout)
        finally:
            watch.cancel()
            child.kill()
            child.wait()
            feeder.join()
            child.stdout.close()

    def _take(self, answer: IO[bytes]) -> Decoded:
        """Check what a child says to the byte: it may be in a stranger's hands."""
        died = Problem(422, "picture.unreadable", "the picture cannot be read: its decoder gave up or took too long")
        try:
            about = json.loads(answer.readline(LINE))
            if "problem" in about:
                raise Problem(
                    int(about["problem"]["status"]), str(about["problem"]["code"]), str(about["problem"]["detail"])
                )
            width, height, mode = int(about["width"]), int(about["height"]), str(about["mode"])
            reading = about["reading"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise died from None
        if mode not in CHANNELS or not 0 < width <= SIDE or not 0 < height <= SIDE or width * height > PIXELS:
            raise died
        digest = hashlib.sha256()

        def rows() -> Iterator[bytes]:
            for _ in range(height):
                row = answer.read(width * CHANNELS[mode])
                if len(row) != width * CHANNELS[mode]:
                    raise died
                digest.update(row)
                yield row

        place = self._folder / f"{uuid.uuid4().hex}.part"
        try:
            with place.open("xb") as file:
                for piece in encode(width, height, mode, rows()):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            place.unlink(missing_ok=True)
            raise
        return Decoded(place, digest.hexdigest(), width, height, mode, reading)


def _feed(pipe: IO[bytes], content: bytes) -> None:
    try:
        with pipe:
            pipe.write(content)
    except OSError:  # the child has seen enough
        return


def settle(decoded: Decoded, name: str) -> None:
    """Give a decoded picture its name, for good."""
    folder = decoded.place.parent
    os.replace(decoded.place, folder / name)
    flush(folder)
