"""serve: the HTTP API, the queue and the studio."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.options import Machine, Voice, between, grouped

app = typer.Typer()


@app.command("serve")
@grouped
def serve(
    machine: Machine,
    voice: Voice,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; others than this machine's own need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(parser=between(0, 65535), metavar="N", help="0 takes a free one.")] = 7860,
    token: Annotated[
        str | None,
        typer.Option(metavar="TEXT", envvar="SFUMATO_TOKEN", help="What clients must know; at least 16 characters."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME[:PORT]", help="A name to be called by. Repeatable."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Queue, history and pictures; in SFUMATO_HOME by default.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", metavar="NAME", help="For requests that name none; the embedded one.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve the studio and the HTTP APIs.

    A queue that survives crashes, a gallery, and events; Ctrl-C lets the running job end.
    """
    import logging

    from sfumato.server.run import serve as run
    from sfumato.server.settings import Settings, default_data

    settings = Settings(
        host=host,
        port=port,
        token=token or None,
        hosts=tuple(allow_host or ()),
        data=default_data() if data is None else data.expanduser().absolute(),
        device=machine.device,
        dtype=machine.dtype,
        model=model,
    )
    if not voice.quiet:
        logging.getLogger("sfumato").setLevel(logging.INFO if not voice.verbose else logging.DEBUG)

    def ready(address: str) -> None:
        sys.stderr.write(f"sfumato serves at {address}\n")
        sys.stderr.flush()
        if open_page:
            import webbrowser

            webbrowser.open(address)

    run(settings, ready)
