"""Drawing on a server instead of on this machine: the same verbs, the same output."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.options import Machine

if TYPE_CHECKING:
    from sfumato.client import Client
    from sfumato.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Painter(Machine):
    """What draws: this machine, or a server."""

    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL", envvar="SFUMATO_SERVER", help="Draw there, where `sfumato serve` runs.", show_default=False
        ),
    ] = None
    token: Annotated[
        str | None,
        typer.Option(metavar="TEXT", envvar="SFUMATO_TOKEN", help="What the server asks for.", show_default=False),
    ] = None

    @contextmanager
    def painter(self) -> "Iterator[Engine | Client]":
        """What runs requests. Raises typer.BadParameter for options that only this machine has."""
        if self.server is None:
            yield self.engine()
            return
        if self.device is not None or self.dtype is not None or self.memory != "auto":
            raise typer.BadParameter(
                "--device, --dtype and --memory are the server's own; leave them out with --server."
            )
        from sfumato.client import Client

        with Client(self.server, token=self.token) as client:
            yield client
