"""What every request passes before a route sees it: host, origin, token, rate, size; and what every answer carries.

Plain ASGI, around everything: a route that forgets to ask is asked for all the same.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sfumato.server.problems import Problem, as_problem
from sfumato.server.settings import Settings

log = logging.getLogger(__name__)

COOKIE = "sfumato_session"
# What can be had without the token, where one is set: the page's own files say nothing about anybody's pictures.
PUBLIC = ("/health", "/metrics", "/sfumato/v1/session", "/")
PAGE = ("/assets/", "/favicon")
SAFE = ("GET", "HEAD", "OPTIONS")
# Bodies that carry pictures: as they are, or as base64 in JSON
PICTURES = ("/sfumato/v1/uploads", "/sfumato/v1/read", "/v1/images/")
BASE64 = ("/sdapi/v1/", "/controlnet/", "/internal/")
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
MEDIA_POLICY = "default-src 'none'; sandbox"
MOST_HEADERS, HEADER_BYTES = 100, 16 * 1024
BODY_SECONDS = 15.0  # between two pieces of a body


def session(token: str) -> str:
    """What the page's cookie holds: something that only a holder of the token can make, and not the token."""
    return hmac.new(token.encode(), b"sfumato session", hashlib.sha256).hexdigest()


class Guard:
    """Wraps an application. Order: host, origin, token, stopping, rate, size."""

    def __init__(self, app: ASGIApp, settings: Settings, *, draining: Callable[[], bool]) -> None:
        self._app, self._settings, self._draining = app, settings, draining
        self._rates = Rates(settings.limits.rate, settings.limits.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        answered, replaced = False, False
        body = Measured(self._most(scope["path"]), scope, receive)

        async def answer(message: Message) -> None:
            nonlocal answered, replaced
            if replaced:  # what the application would have said of a body that it could not read
                return
            if message["type"] == "http.response.start" and body.problem is not None and not answered:
                replaced = True
                problem, body.problem = body.problem, None
                await refuse(scope, told, problem)
                return
            await told(message)

        async def told(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                message = {**message, "headers": with_policy(message.get("headers", []), scope["path"])}
            await send(message)

        try:
            self._check(scope)
            body.check_stated()
            await self._app(scope, receive if scope["type"] == "websocket" else body, answer)
        except Problem as problem:
            if not answered:
                await refuse(scope, told, problem)
        except Exception as error:
            log.exception("%s %s failed", scope.get("method", "websocket"), scope["path"])
            if answered:
                raise
            await refuse(scope, told, as_problem(error))

    def _check(self, scope: Scope) -> None:
        headers = header_lists(scope)
        if len(scope["headers"]) > MOST_HEADERS or sum(len(n) + len(v) for n, v in scope["headers"]) > HEADER_BYTES:
            raise Problem(431, "headers.large", "the header fields are too many, or too large")
        self._check_host(scope, headers)
        unsafe = scope["type"] == "websocket" or scope["method"] not in SAFE
        if unsafe:
            self._check_origin(scope, headers)
        if self._settings.token is not None and not is_public(scope["path"]):
            self._check_token(self._settings.token, headers)
        if not unsafe:
            return
        if self._draining():
            raise Problem(503, "stopping", "the server is stopping; try again later", retry_after=10)
        if scope["type"] == "http" and not self._rates.take((scope.get("client") or ("", 0))[0]):
            raise Problem(429, "rate", "too many requests at once; slow down", retry_after=1)

    def _check_host(self, scope: Scope, headers: dict[bytes, list[bytes]]) -> None:
        """The Host must be one of ours, to the letter: no name that merely leads here."""
        found = headers.get(b"host", [])
        if len(found) != 1 or found[0].decode("latin-1").lower() not in self.hosts(scope):
            raise Problem(
                421,
                "host",
                "the server is not called by this name",
                hint="call it by its address, or start it with --allow-host NAME",
            )

    def hosts(self, scope: Scope) -> set[str]:
        """The Hosts that are ours: the socket's own address, this machine's names for itself, and those allowed."""
        address, port = scope.get("server") or ("127.0.0.1", self._settings.port)
        names = {f"[{address}]" if ":" in str(address) else str(address), *self._settings.hosts}
        if is_loopback(str(address)):
            names |= {"localhost", "127.0.0.1", "[::1]"}
        return {name.lower() if has_port(name) else f"{name.lower()}:{port}" for name in names} | (
            {name.lower() for name in names if not has_port(name)} if port in (80, 443) else set()
        )

    def _check_origin(self, scope: Scope, headers: dict[bytes, list[bytes]]) -> None:
        """What changes something must come from our own page or from no page at all."""
        origins = [each.decode("latin-1").lower() for each in headers.get(b"origin", [])]
        fetch = [each.decode("latin-1").lower() for each in headers.get(b"sec-fetch-site", [])]
        ours = {f"{scheme}://{host}" for scheme in ("http", "https") for host in self.hosts(scope)}
        if (
            len(origins) > 1
            or not ours.issuperset(origins)
            or any(each not in ("same-origin", "none") for each in fetch)
        ):
            raise Problem(403, "origin", "another site's page may not change anything here")
        kind = b"".join(headers.get(b"content-type", [])).split(b";")[0].strip().lower()
        asked = b"x-requested-by" in headers or b"authorization" in headers
        if kind in (b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data") and not (
            asked or fetch or origins or scope["path"].startswith("/v1/")
        ):
            raise Problem(
                415,
                "content_type",
                "a form that a page could send unasked needs the header X-Requested-By, with any value",
            )

    @staticmethod
    def _check_token(token: str, headers: dict[bytes, list[bytes]]) -> None:
        for stated in headers.get(b"authorization", []):
            scheme, _, value = stated.decode("latin-1").partition(" ")
            given = (
                value.strip() if scheme.lower() == "bearer" else password(value) if scheme.lower() == "basic" else ""
            )
            if hmac.compare_digest(given.encode(), token.encode()):
                return
        for line in headers.get(b"cookie", []):
            for each in line.decode("latin-1").split(";"):
                name, _, value = each.strip().partition("=")
                if name == COOKIE and hmac.compare_digest(value.encode(), session(token).encode()):
                    return
        raise Problem(401, "token", "this server asks for its token", hint="Authorization: Bearer TOKEN")

    def _most(self, path: str) -> int:
        """The largest body that this path takes."""
        limits = self._settings.limits
        if path.startswith(PICTURES):
            return limits.upload
        return limits.json_upload if path.startswith(BASE64) else limits.body


class Measured:
    """A request's body as it comes in: too large, or too slow, and it ends. `problem` is why."""

    def __init__(self, most: int, scope: Scope, receive: Receive) -> None:
        self._most, self._receive = most, receive
        self._read, self._over = 0, False
        self._stated = header_lists(scope).get(b"content-length", [b"0"])[0]
        self.problem: Problem | None = None

    def check_stated(self) -> None:
        """Raise Problem if the body is said to be too large."""
        if self._stated.isdigit() and int(self._stated) > self._most:
            raise self._refused(413, "body.large", f"the body is too large; at most {self._most} bytes are taken here")

    async def __call__(self) -> Message:
        """The next piece. Raises Problem."""
        if self._over:  # a listener for the end of the connection, which may take for ever
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), BODY_SECONDS)
        except TimeoutError:
            raise self._refused(408, "body.slow", "the body did not come in time") from None
        self._read += len(message.get("body", b""))
        if self._read > self._most:
            raise self._refused(413, "body.large", f"the body is too large; at most {self._most} bytes are taken here")
        self._over = not message.get("more_body", False)
        return message

    def _refused(self, status: int, code: str, detail: str) -> Problem:
        self.problem = Problem(status, code, detail)
        return self.problem


class Rates:
    """A bucket of tokens for each client."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, float(burst)
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, client: str) -> bool:
        """May this client do one more thing now?"""
        now = time.monotonic()
        with self._lock:
            if len(self._buckets) > 4096:  # those that are full again say nothing
                full = self._burst / self._rate
                self._buckets = {name: each for name, each in self._buckets.items() if now - each[1] < full}
            left, last = self._buckets.get(client, (self._burst, now))
            left = min(self._burst, left + (now - last) * self._rate)
            if left < 1:
                self._buckets[client] = (left, now)
                return False
            self._buckets[client] = (left - 1, now)
            return True


async def refuse(scope: Scope, send: Callable[[Message], Awaitable[None]], problem: Problem) -> None:
    """Answer with a problem."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": problem.code})
        return
    body = problem.body()
    headers = [(name.encode(), value.encode()) for name, value in problem.headers().items()]
    if problem.status in (408, 413):
        headers.append((b"connection", b"close"))  # what is left of the body is not read
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def with_policy(headers: Iterable[tuple[bytes, bytes]], path: str) -> list[tuple[bytes, bytes]]:
    """The header fields of an answer, with those that tell a browser what not to do."""
    found = {name.lower(): value for name, value in headers}
    media = found.get(b"content-type", b"").startswith(b"image/")
    extra = {
        b"x-content-type-options": b"nosniff",
        b"referrer-policy": b"no-referrer",
        b"content-security-policy": (MEDIA_POLICY if media and not path.startswith(PAGE) else PAGE_POLICY).encode(),
        b"cross-origin-resource-policy": b"same-origin",
        b"cross-origin-opener-policy": b"same-origin",
        b"x-frame-options": b"DENY",
    }
    return [*headers, *((name, value) for name, value in extra.items() if name not in found)]


def header_lists(scope: Scope) -> dict[bytes, list[bytes]]:
    """The request's header fields; each may be there more than once."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


def is_public(path: str) -> bool:
    """May this be had without a token?"""
    return path in PUBLIC or path.startswith(PAGE)


def is_loopback(host: str) -> bool:
    """Does this address lead to nobody but this machine?"""
    return host in ("localhost", "::1") or host.startswith("127.")


def has_port(name: str) -> bool:
    """Does a host's name end with a port?"""
    return name.rpartition("]")[2].rpartition(":")[2].isdecimal()


def password(value: str) -> str:
    """The password of HTTP Basic."""
    try:
        return base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
