"""A server of its own process that draws with the embedded model, for clients that other people wrote."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SERVE = """if True:
    import sys
    from pathlib import Path
    from sfumato.server.run import serve
    from sfumato.server.settings import Settings
    settings = Settings(port=0, data=Path(sys.argv[1]), token=sys.argv[2] or None)
    serve(settings, lambda address: print(address, flush=True))
"""
TOKEN = "a token of a good length"


def serving(folder: Path, token: str) -> Iterator[str]:
    """The address of a server, until it is not needed any more."""
    command = [sys.executable, "-c", SERVE, str(folder), token]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()
