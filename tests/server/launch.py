"""A server of its own process with the stub for a worker: `launch.py '{"data": ..., "limits": {...}}'`."""

import json
import sys
from pathlib import Path

from sfumato.server.run import serve
from sfumato.server.settings import Limits, Settings

STUB = (sys.executable, str(Path(__file__).with_name("stub.py")))


def ready(address: str) -> None:
    print(address, flush=True)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    limits = Limits(
        **{"rate": 10_000.0, "burst": 10_000, "queue": 5000, "client_queue": 5000, "reserve": 2**20}
        | given.pop("limits", {})
    )
    data = Path(given.pop("data"))
    serve(Settings(data=data, limits=limits, program=STUB, port=given.pop("port", 0), **given), ready)
