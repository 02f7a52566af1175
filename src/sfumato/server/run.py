"""Serves until it is told to stop: binds, prints where, and ends without losing anything."""

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn

from sfumato.errors import ConfigError, RequestError, SfumatoError
from sfumato.server.app import make_app
from sfumato.server.catalogue import check_named
from sfumato.server.guard import is_loopback
from sfumato.server.service import Service
from sfumato.server.settings import Settings

log = logging.getLogger(__name__)

HARD_STOP = 0.5  # seconds for the running job after the second signal
HARD_END = 1  # seconds, after that, for answers that are on their way


def check(settings: Settings) -> None:
    """Raise RequestError for settings that would open the server to strangers, ModelNotFoundError for no model."""
    if settings.token is None and not is_loopback(settings.host):
        raise RequestError(
            f"--host {settings.host} can be reached from other machines, and there is no token: anybody could use "
            "this one. Set one with --token (or SFUMATO_TOKEN), or listen on 127.0.0.1.",
            "host",
        )
    if settings.token is not None and len(settings.token) < 16:
        raise RequestError("the token is too short to keep anybody out: use at least 16 characters.", "token")
    if settings.model is not None:
        check_named(settings.model)


def listen(settings: Settings) -> socket.socket:
    """A socket at the address. Raises ConfigError if it is taken, or not this machine's."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # its protocol said: asyncio sends at once what it knows as TCP, else the end of an answer waits 40 ms for a client
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        place = f"{settings.host}:{settings.port}"
        raise ConfigError(
            f"{place} cannot be listened at: {error.strerror or error}. Choose another --port."
        ) from error
    return listener


class Server(uvicorn.Server):
    """uvicorn, which on a signal first lets the running job end, while it answers that it is stopping."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self._service, self._ready, self._signals = service, ready, 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Bind, then say where."""
        await super().startup(sockets)
        for server in self.servers:
            for each in server.sockets:
                host, port = each.getsockname()[:2]
                self._ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None = None) -> None:
        """The first signal: claim no more, let the running job end. The second: give it back now."""
        self._signals += 1
        if self._signals == 1:
            self._service.drain(self._service.settings.limits.stop)
            threading.Thread(target=self._finish, daemon=True).start()
        else:
            self._service.drain(HARD_STOP)
            self.config.timeout_graceful_shutdown = HARD_END

    def _finish(self) -> None:
        self._service.runner.join()
        self._service.hang_up()
        self.should_exit = True


def serve(settings: Settings, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until SIGTERM or Ctrl-C, which nothing else hears then; `ready` is called with the address.

    Raises SfumatoError.
    """
    check(settings)
    listener = listen(settings)
    try:
        service = Service(settings)
    except SfumatoError:
        listener.close()
        raise
    config = uvicorn.Config(
        make_app(service),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
        limit_concurrency=settings.limits.connections,
        h11_max_incomplete_event_size=32 * 1024,
        http="h11",
    )
    server = Server(config, service, ready)
    hear(server.handle_exit)
    try:
        asyncio.run(server.serve(sockets=[listener]))
    finally:
        hear(signal.SIG_IGN)  # for good: one more, while the interpreter ends, must not change how it ends


def hear(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """What is done at a signal to stop, where signals are heard: in the main thread."""
    if threading.current_thread() is threading.main_thread():
        for wanted in (signal.SIGINT, signal.SIGTERM):
            signal.signal(wanted, handler)
