"""An answer that is a file which is open already, so that it is the one that was looked at."""

import os
from typing import Any, BinaryIO

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send


class OpenedFile(FileResponse):
    """An answer with the rest of an opened file, which it closes."""

    def __init__(self, file: BinaryIO, **more: Any) -> None:
        self._file = file
        super().__init__(f"/dev/fd/{file.fileno()}", stat_result=os.fstat(file.fileno()), **more)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._file:
            await super().__call__(scope, receive, send)
