"""A running server, used from Python: submit, listen, take the pictures. Imported when it is first used.

with sfumato.Client("http://127.0.0.1:7860") as client:
    job = client.submit(sfumato.Request(prompt="a red house on green grass", seed=1))
    pictures = client.pictures(client.wait(job.id))
"""

import io
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import httpx2
from PIL import Image

from sfumato.errors import ModelNotFoundError, RequestError, ServerError
from sfumato.events import Event, Finished, Loading, Preview, Progress
from sfumato.metadata import read_texts
from sfumato.request import Request
from sfumato.server.values import Job, ModelCard, Upload

if TYPE_CHECKING:
    from sfumato.opening import PictureSource

API = "/sfumato/v1"
ADDRESS = "http://127.0.0.1:7860"
ADDRESSES = re.compile(r"https?://[^/\s]", re.IGNORECASE)
FILE_FIELDS = ("model", "vae", "loras", "embeddings", "controls", "image_prompts", "refiner")
"""Of a request that was checked here: what a server refuses there is the name of a file that it does not have."""
TRIES = 5  # of what may be repeated: all but a retry, since a job is posted under a key
PICTURE_FIELDS = ("image", "images", "mask")  # of a request and of its parts
PATIENCE = 60.0  # seconds that an answer may take; a first look at a large model hashes it


@dataclass(frozen=True)
class ServerEvent:
    """Something that happened on the server: its number, its kind, its data."""

    id: int
    kind: str
    data: Mapping[str, Any]


class Client:
    """One server. `token` is what it asks for, `name` whose jobs they are (those of different names take turns).

    Raises ServerError if the server cannot be reached or refuses, RequestError for a wrong request or an address that
    is none, ModelNotFoundError for a name that the server does not have.
    """

    def __init__(
        self, server: str = ADDRESS, *, token: str | None = None, name: str | None = None, patience: float = PATIENCE
    ) -> None:
        headers = {
            "X-Sfumato-Client": name or f"python-{os.getpid()}-{secrets.token_hex(3)}",
            "X-Requested-By": "sfumato",
        }
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if not ADDRESSES.match(server):
            raise RequestError(
                f"server is {server!r}; it must be an address that begins with http:// or https://, such as {ADDRESS}",
                "server",
            )
        self.server = server.rstrip("/")
        self._patience = patience
        self._http = httpx2.Client(base_url=self.server, headers=headers, timeout=patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def submit(
        self,
        request: Request,
        *,
        image: "PictureSource | None" = None,
        mask: "PictureSource | None" = None,
        title: str | None = None,
        priority: int = 0,
        key: str | None = None,
    ) -> Job:
        """Put a request into the server's queue. Pictures, and paths of pictures in the request, are handed over.

        What is posted twice under one `key` makes one job; there is always one, so that a lost answer does no harm.
        """
        handed = {field: self.upload(each).id for field, each in (("image", image), ("mask", mask)) if each is not None}
        fields = self._handed_over({**request.to_dict(), **handed})
        body = {"request": fields, "title": title, "priority": priority}
        found = self._call("POST", "/jobs", json=body, headers={"Idempotency-Key": key or secrets.token_hex(16)})
        return Job.model_validate(found)

    def upload(self, picture: "PictureSource") -> Upload:
        """Hand a picture over: a path, the bytes of a file, or an image."""
        return Upload.model_validate(self._call("POST", "/uploads", content=file_bytes(picture)))

    def _handed_over(self, value: Any, name: str = "") -> Any:
        """A request's JSON in which the paths of pictures, wherever they stand, have become ids."""
        if isinstance(value, dict):
            return {key: self._handed_over(each, key) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self._handed_over(each, name) for each in value]
        if name in PICTURE_FIELDS and isinstance(value, str) and not value.startswith("sha256:"):
            return self.upload(value).id
        return value

    def job(self, id: str) -> Job:
        """A job as it is now."""
        return Job.model_validate(self._call("GET", f"/jobs/{id}"))

    def jobs(self, *, search: str = "", limit: int = 50) -> list[Job]:
        """The newest jobs."""
        found = self._call("GET", "/jobs", params={"search": search, "limit": limit})
        return [Job.model_validate(each) for each in found["jobs"]]

    def models(self) -> list[ModelCard]:
        """The models that the server has."""
        return [ModelCard.model_validate(each) for each in self._call("GET", "/models")["models"]]

    def cancel(self, id: str) -> Job:
        """End a job: now if it waits, within a step if it runs."""
        return Job.model_validate(self._call("POST", f"/jobs/{id}/cancel"))

    def halt(self, id: str, wish: Literal["skip", "stop"] = "stop") -> Job:
        """Call what is drawn now done as it is."""
        return Job.model_validate(self._call("POST", f"/jobs/{id}/halt", json={"wish": wish}))

    def retry(self, id: str) -> Job:
        """A new job with the request of an ended one. It is asked for once: twice would make two."""
        return Job.model_validate(self._call("POST", f"/jobs/{id}/retry", again=False))

    def wait(self, id: str, timeout: float | None = None) -> Job:
        """The job when it has ended. Raises ServerError if that takes longer than `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for event in self.events(id, deadline=deadline):
            if event.kind == "job" and (job := Job.model_validate(event.data)).over:
                return job
        raise ServerError(f"job {id} has not ended within {timeout} s")

    def pictures(self, job: Job) -> list[Image.Image]:
        """The pictures of a job; `.info` holds what `sfumato.save` writes with them."""
        return [self._picture(each.file) for each in job.pictures]

    def events(self, id: str | None = None, *, deadline: float | None = None) -> Iterator[ServerEvent]:
        """What happens, to one job until it has ended, or to all for ever; a lost connection is taken up again.

        The first event of a job is how it is now. Ends at `deadline` (of `time.monotonic`) in any case.
        """
        last: int | None = None
        failures = 0
        while deadline is None or time.monotonic() < deadline:
            try:
                for event in self._stream(id, last, deadline):
                    if event is None:
                        return
                    failures, last = 0, event.id or last
                    yield event
                    if (
                        id is not None
                        and event.kind == "job"
                        and event.data["state"] in ("done", "failed", "cancelled")
                    ):
                        return
            except httpx2.TransportError as error:
                failures += 1
                if failures >= TRIES:
                    raise self._unreachable(error) from error
            time.sleep(min(0.2 * 2**failures, 3.0))

    def run(
        self,
        request: Request,
        *,
        image: "PictureSource | None" = None,
        mask: "PictureSource | None" = None,
        metadata: bool = True,
    ) -> Iterator[Event]:
        """The events of a request, as `Engine.run` gives them, though the pictures are drawn elsewhere.

        Leaving the loop cancels the job. Without `metadata` the pictures carry none.
        """
        job = self.submit(request, image=image, mask=mask)
        seen: set[int] = set()
        try:
            for event in self.events(job.id):
                yield from self._told(event, seen, metadata=metadata)
                if event.kind == "job":
                    job = Job.model_validate(event.data)
        finally:
            if not job.over:
                self.cancel(job.id)
        if job.state != "done":
            raise failure(job)

    def _told(self, event: ServerEvent, seen: set[int], *, metadata: bool) -> Iterator[Event]:
        data = event.data
        if event.kind == "progress" and data.get("loading"):
            yield Loading(data["loading"])
        elif event.kind == "progress" and data["step"]:
            yield Progress(data["step"], data["steps"], 0.0, None, (data["picture"],))
        elif event.kind == "preview":
            yield Preview(data["step"], data["steps"], (preview(data["image"]),), (data["picture"],))
        elif event.kind in ("picture", "job"):
            pictures = data["pictures"] if event.kind == "job" else [data]
            for each in sorted(pictures, key=lambda picture: picture["index"]):
                if each["index"] not in seen:
                    seen.add(each["index"])
                    picture = self._picture(each["file"])
                    request = Request.from_dict(self._call("GET", f"/pictures/{each['id']}")["record"]["request"])
                    if not metadata:
                        picture.info.clear()
                    yield Finished(each["index"], each["seed"], picture, request)

    def _picture(self, file: str) -> Image.Image:
        content = self._answer("GET", file).content
        with Image.open(io.BytesIO(content), formats=("PNG",)) as opened:
            picture = opened.convert("RGB")
            picture.info.clear()
            picture.info.update(read_texts(opened))
        return picture

    def _stream(self, id: str | None, last: int | None, deadline: float | None) -> Iterator[ServerEvent | None]:
        """The events of one connection; before them, how the job is now. None at the deadline."""
        place = f"{API}/events" if id is None else f"{API}/jobs/{id}/events"
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        with self._http.stream(
            "GET", place, headers=headers, timeout=httpx2.Timeout(self._patience, read=30)
        ) as answer:
            if answer.status_code != 200:
                answer.read()
                raise refusal(answer)
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                if deadline is not None and time.monotonic() > deadline:
                    yield None
                if line.startswith("retry:") and id is not None:
                    yield ServerEvent(0, "job", self._call("GET", f"/jobs/{id}"))
                elif line:
                    name, _, value = line.partition(":")
                    fields[name] = value.removeprefix(" ")
                else:
                    if fields.get("event") not in (None, "reset"):
                        yield ServerEvent(int(fields["id"]), fields["event"], json.loads(fields["data"]))
                    fields = {}

    def _call(self, method: str, place: str, **more: Any) -> Any:
        return self._answer(method, f"{API}{place}", **more).json()

    def _answer(self, method: str, place: str, *, again: bool = True, **more: Any) -> httpx2.Response:
        """The answer; what the server was too busy for is asked again, and (`again`) what failed on the way."""
        for attempt in range(1, TRIES + 1):
            try:
                answer = self._http.request(method, place, **more)
            except httpx2.TransportError as error:
                if not again or attempt == TRIES or isinstance(error, httpx2.ConnectError):
                    raise self._unreachable(error) from error
                time.sleep(0.2 * 2**attempt)
                continue
            if answer.status_code in (429, 503) and attempt < TRIES:
                time.sleep(min(float(answer.headers.get("retry-after", 1)), 10.0))
                continue
            if answer.is_error:
                raise refusal(answer)
            return answer
        raise AssertionError("the last try answers or raises")

    def _unreachable(self, error: Exception) -> ServerError:
        return ServerError(f"no answer from {self.server} ({error}). Is `sfumato serve` running there?")


def refusal(answer: httpx2.Response) -> RequestError | ModelNotFoundError | ServerError:
    """What a server says is wrong, as an error."""
    try:
        told = answer.json()
        detail, code, hint = str(told["detail"]), str(told["code"]), told.get("hint")
    except (ValueError, KeyError, TypeError):
        return ServerError(f"the server answered {answer.status_code}, and not as sfumato does. Is it one?")
    if answer.status_code == 422 and told.get("field") in FILE_FIELDS:
        return ModelNotFoundError(detail)
    if answer.status_code == 422 and code.startswith("request"):
        return RequestError(detail, told.get("field"))
    if answer.status_code == 401:
        detail += "; give it with --token or SFUMATO_TOKEN"
    return ServerError(f"{detail}. {hint}." if hint and answer.status_code != 401 else f"{detail}.")


def failure(job: Job) -> RequestError | ServerError:
    """Why a job has no result, as an error."""
    if job.error is None:
        return ServerError(f"the job was {job.state} on the server.")
    if job.error.code.startswith("request."):
        return RequestError(job.error.detail, job.error.code.removeprefix("request."))
    return ServerError(f"{job.error.detail}{f'. {job.error.hint}' if job.error.hint else ''}.")


def preview(url: str) -> Image.Image:
    """The picture in a data URL."""
    import base64

    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])), formats=("JPEG",)) as opened:
        return opened.convert("RGB")


def file_bytes(picture: "PictureSource") -> bytes:
    """A picture as the bytes of a file."""
    from sfumato.errors import PictureError

    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()
    try:
        with open(picture, "rb") as file:
            return file.read()
    except OSError as error:
        raise PictureError(f"{os.fspath(picture)} cannot be read: {error.strerror or error}") from error
