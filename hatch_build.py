"""Refuses to build a wheel without the studio's page, which is built by Vite and kept in the repository."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGE = Path("src", "sfumato", "server", "web", "index.html")


class NeedsPage(BuildHookInterface[Any]):
    """Runs before a wheel is made; an editable install may come before the page is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raises FileNotFoundError, with what to do, if the page is not there."""
        if version == "editable" or (Path(self.root) / PAGE).is_file():
            return
        raise FileNotFoundError(
            f"{PAGE} is missing: the wheel would have no studio. Build it with `npm ci && npm run build` in frontend/."
        )
