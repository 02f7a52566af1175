"""What several tests do with the page: draw, wait, ask the server behind it."""

import io
from typing import Any

from PIL import Image
from playwright.sync_api import Page, expect

QUICK = {"steps": 4}
"""A draft whose pictures are there at once; what they look like is not what these tests are about."""

PHONE = {"width": 390, "height": 844}


def draw(page: Page, words: str) -> None:
    """Write a prompt and draw, by keys."""
    page.get_by_label("Prompt", exact=True).fill(words)
    page.keyboard.press("Control+Enter")


def result(page: Page, words: str) -> Any:
    """The picture on the stage, once it is there."""
    shown = page.get_by_role("button", name="Look at it large").get_by_role("img", name=words)
    expect(shown).to_be_visible()
    return shown


def ask(page: Page, path: str, method: str = "GET", data: Any = None) -> Any:
    """What the native API answers."""
    server = "/".join(page.url.split("/")[:3])
    answer = page.request.fetch(f"{server}/sfumato/v1{path}", method=method, data=data)
    assert answer.ok, answer.text()
    return answer.json()


def pixels(page: Page, path: str) -> Image.Image:
    """A picture of the server."""
    server = "/".join(page.url.split("/")[:3])
    return Image.open(io.BytesIO(page.request.get(server + path).body())).convert("RGB")


class MainThread:
    """How long the main thread of a page has computed: what its user waits for on a machine that does nothing else."""

    def __init__(self, page: Page) -> None:
        self._tools = page.context.new_cdp_session(page)
        self._tools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def time(self) -> float:
        """Seconds of a processor since the page began."""
        told = self._tools.send("Performance.getMetrics")["metrics"]
        return next(float(each["value"]) for each in told if each["name"] == "TaskDuration")


def scroll_through(page: Page) -> int:
    """Scroll from the end to the beginning, two thousand pixels a frame: all that is seen is new. How many frames?"""
    script = """() => new Promise(resolve => {
        let at = document.documentElement.scrollHeight; let frames = 0
        const step = () => {
            at -= 2000; frames++; scrollTo(0, at)
            at > 0 ? requestAnimationFrame(step) : resolve(frames)
        }
        requestAnimationFrame(step)
    })"""
    return int(page.evaluate(script))
