"""One server for the clients that other people wrote."""

from collections.abc import Iterator

import pytest
from drawing_server import TOKEN, serving


@pytest.fixture(scope="session")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that draws with the embedded model."""
    yield from serving(tmp_path_factory.mktemp("drawing") / "data", TOKEN)
