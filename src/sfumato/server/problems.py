"""What the API answers when something is wrong: one table from our errors to status, code and words (RFC 9457)."""

import json
import re
from typing import Any

from sfumato.errors import (
    ConfigError,
    MemoryLimitError,
    ModelFileError,
    ModelNotFoundError,
    OutputError,
    PictureError,
    PromptError,
    RequestError,
    SfumatoError,
)
from sfumato.server.database import DiskFullError
from sfumato.server.values import Job

TITLES = {
    400: "Bad request",
    401: "Not authorised",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    408: "Request timeout",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    421: "Misdirected request",
    422: "Wrong request",
    429: "Too many requests",
    431: "Header fields too large",
    500: "Internal error",
    502: "Worker failed",
    503: "Not available now",
    504: "Took too long",
    507: "Out of space",
}

# The first kind that fits decides: (kind, status, code, hint)
TABLE: tuple[tuple[type[Exception], int, str, str | None], ...] = (
    (PromptError, 422, "request.prompt", None),
    (RequestError, 422, "request", None),
    (PictureError, 422, "picture.unreadable", "PNG, JPEG and WebP pictures can be read"),
    (ModelNotFoundError, 404, "model.unknown", "GET /sfumato/v1/models lists those that can be named"),
    (ModelFileError, 409, "model.unusable", None),
    (ConfigError, 422, "request.unsupported", None),
    (DiskFullError, 507, "disk.full", "free some space; nothing needs to be restarted"),
    (OutputError, 507, "output.failed", None),
    (MemoryLimitError, 507, "out_of_memory", None),
    (SfumatoError, 500, "failed", None),
    (MemoryError, 507, "out_of_memory", "make smaller pictures, or fewer together with batch 1"),
)


class Problem(SfumatoError):
    """An answer that says what is wrong."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.field, self.hint, self.retry_after = field, hint, retry_after

    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        body |= {name: value for name, value in (("field", self.field), ("hint", self.hint)) if value is not None}
        return body

    def body(self) -> bytes:
        """The answer's bytes."""
        return json.dumps(self.document(), ensure_ascii=True).encode()

    def headers(self) -> dict[str, str]:
        """The answer's own header fields."""
        fields = {"content-type": "application/problem+json", "cache-control": "no-store"}
        if self.retry_after is not None:
            fields["retry-after"] = str(self.retry_after)
        if self.status == 401:
            fields["www-authenticate"] = 'Bearer realm="sfumato", Basic realm="sfumato"'
        return fields


def as_problem(error: Exception) -> Problem:
    """What to answer for an error; of one that is not ours, nothing but that it happened."""
    if isinstance(error, Problem):
        return error
    for kind, status, code, hint in TABLE:
        if isinstance(error, kind):
            field = error.field if isinstance(error, RequestError) else None
            named = field.partition(".")[0] if field else ""  # of a part's field, the part
            whole = f"request.{named}" if code == "request" and named.isidentifier() else code
            return Problem(status, whole, plain(str(error)) or "it failed", field=field, hint=hint)
    return Problem(500, "internal", "something went wrong that should not; the server's log says more")


def check_drawn(job: Job) -> None:
    """Raise the problem of a job that is not done."""
    if job.state == "failed":
        assert job.error is not None
        raise Problem(500, job.error.code, job.error.detail, hint=job.error.hint)
    if job.state == "cancelled":
        raise Problem(409, "cancelled", "the job was cancelled")
    if not job.over:
        raise Problem(503, "stopping", "the server is stopping; the job goes on when it is started again")


_PATH = re.compile(r"(?<![\w.:/<])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\:'\"(),;]+[/\\])+(?=[^\s/\\])")


def plain(text: str) -> str:
    """A message without the folders in it: what a path ends with is enough for those who know it, and tells others
    nothing."""
    return _PATH.sub("", text)
