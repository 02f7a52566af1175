"""A real server with the embedded model, and real Chromium to use its page with; skipped where that is missing."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from studio_server import PATIENCE, Server

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright of requirements-dev.lock is not installed here"
)
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
# as root, without a GPU, and without the browser's own calls to its makers
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1440, "height": 900}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name what needs Chromium where there is none."""
    for item in items:
        if CHROMIUM is None and Path(__file__).parent in item.path.parents and "browser" in item.fixturenames:
            item.add_marker(pytest.mark.skip(reason="needs Chromium, and this machine has none"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests of a process; each finds its own pictures by words or in its own tab."""
    made = Server(tmp_path_factory.mktemp("studio"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """One for a single test: its queue and its history begin empty."""
    made = Server(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium."""
    sync_api.expect.set_options(timeout=PATIENCE)
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


Open = Callable[..., Any]


@pytest.fixture
def tab(browser: Any) -> Iterator[Open]:
    """Opens tabs: `tab(server, "#/queue", draft={"steps": 4})`. What the page's console complains of fails the test."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def listen(message: Any) -> None:
        # a failed fetch is the page's to handle, and what a test may be about; the page's policy and errors are not
        if message.type == "error" and "Failed to load resource" not in message.text and "ERR_" not in message.text:
            complaints.append(message.text)

    def opened(
        server: Server,
        place: str = "#/create",
        *,
        draft: dict[str, Any] | None = None,
        beside: Any = None,
        viewport: dict[str, int] = DESKTOP,
        **options: Any,
    ) -> Any:
        if beside is None:
            contexts.append(browser.new_context(viewport=viewport, **options))
            contexts[-1].set_default_timeout(PATIENCE)
            if draft is not None:
                script = f"localStorage['sfumato.draft'] ??= {json.dumps(json.dumps(draft))}"
                contexts[-1].add_init_script(script)
        page = (contexts[-1] if beside is None else beside.context).new_page()
        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{server.address}/{place}")
        page.get_by_role("navigation", name="Screens").wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
