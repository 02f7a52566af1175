"""The history: ten thousand pictures scroll, words are searched, two are compared, what is deleted comes back."""

import json
import re
from typing import Any

from playwright.sync_api import Route, expect
from studio_flows import QUICK, MainThread, ask, draw, result, scroll_through


def test_ten_thousand_pictures_are_scrolled_with_few_elements(server: Any, tab: Any) -> None:
    count = 10_000
    page = tab(server, "#/models")

    def answer(route: Route) -> None:
        found = re.search(r"cursor=(\d+)", route.request.url)
        first = int(found.group(1)) if found else 0
        limit = int(re.search(r"limit=(\d+)", route.request.url).group(1))  # type: ignore[union-attr]
        pictures = [
            {
                "id": f"p{i}",
                "job": None,
                "index": 0,
                "sha256": f"sha256:{i:064x}",
                "width": 128,
                "height": 128,
                "seed": i,
                "prompt": f"picture {i}",
                "created": f"2026-01-01T00:00:00.{count - i:05d}Z",
                "favourite": False,
                "deleted": False,
                "file": "/favicon.svg",
                "thumbnail": "/favicon.svg",
            }
            for i in range(first, min(count, first + limit))
        ]
        following = str(first + limit) if first + limit < count else None
        route.fulfill(body=json.dumps({"pictures": pictures, "next": following, "total": count}))

    page.route(re.compile(r"/sfumato/v1/pictures\?"), answer)
    page.get_by_role("link", name="History").click()
    expect(page.get_by_text("10,000 pictures")).to_be_visible()
    grid = page.get_by_role("group", name="Pictures, newest first")
    expect(grid.get_by_role("button", name="picture 0, 1 of 10000")).to_be_visible()
    for share in (0.3, 0.7, 1.0):
        page.evaluate("share => scrollTo(0, share * document.documentElement.scrollHeight)", share)
        expect(grid.locator("img").first).to_be_visible()
        assert grid.locator(".cell").count() < 160
    expect(grid.get_by_role("button", name="picture 9999, 10000 of 10000")).to_be_visible()
    thread = MainThread(page)
    begin = thread.time()
    frames = scroll_through(page)
    assert (thread.time() - begin) / frames < 0.1  # s of the main thread, each


def test_the_pictures_are_asked_for_once(server: Any, tab: Any) -> None:
    page = tab(server, "#/models")
    expect(page.get_by_role("button", name="Draw with it").first).to_be_visible()
    page.wait_for_function("() => performance.getEntriesByType('resource').some(each => /queue$/.test(each.name))")
    page.wait_for_timeout(300)  # the stream of events is open, and what it brings at first is here
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/pictures?" in request.url else None)
    page.get_by_role("link", name="History").click()
    expect(page.get_by_text(re.compile(r"^[\d,]+ pictures?$"))).to_be_visible()
    page.wait_for_timeout(600)
    assert len(asked) == 1


def test_search_favourites_delete_undo_and_the_bin(server: Any, tab: Any) -> None:
    page = tab(server, draft=QUICK)
    for words in ("a green ball at dusk", "a green star at dusk"):
        draw(page, words)
        result(page, words)
    page.get_by_role("button", name="Favourite", exact=True).click()
    page.get_by_role("link", name="History").click()
    page.get_by_label("Search the words").fill("green at dusk")
    cells = page.locator(".cell .open")
    expect(cells).to_have_count(2)
    page.get_by_role("button", name="Favourites").click()
    expect(cells).to_have_count(1)
    expect(cells.first).to_have_accessible_name(re.compile("a green star at dusk"))
    page.get_by_role("button", name="Favourites").click()
    expect(cells).to_have_count(2)
    cells.first.focus()
    page.keyboard.press("x")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(cells).to_have_count(1)
    page.get_by_role("button", name="Undo").click()
    expect(cells).to_have_count(2)
    page.locator(".cell .select").first.click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(cells).to_have_count(1)
    page.get_by_role("button", name="Deleted", exact=True).click()
    expect(cells).to_have_count(1)
    page.locator(".cell .select").first.click()
    page.get_by_role("button", name="Restore").click()
    page.get_by_role("button", name="Deleted", exact=True).click()
    expect(cells).to_have_count(2)


def test_two_pictures_are_compared(server: Any, tab: Any) -> None:
    page = tab(server, draft={**QUICK, "count": 2})
    draw(page, "an orange heart in the desert")
    strip = page.get_by_role("toolbar", name="Drawn in this tab")
    expect(strip.get_by_role("button", name="an orange heart in the desert", exact=True)).to_have_count(2)
    page.get_by_role("link", name="History").click()
    page.get_by_label("Search the words").fill("orange heart")
    expect(page.locator(".cell .open")).to_have_count(2)
    for select in page.locator(".cell .select").all():
        select.click()
    page.get_by_role("button", name="Compare").click()
    dialog = page.get_by_role("dialog", name="Compare")
    before = dialog.locator("img.before")
    slider = dialog.get_by_role("slider")
    slider.fill("25")
    expect(before).to_have_css("clip-path", "inset(0px 75% 0px 0px)")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_a_picture_tells_its_request_and_is_made_again_identically(server: Any, tab: Any) -> None:
    page = tab(server, draft={**QUICK, "guidance": 3.5})
    draw(page, "a black tree in winter")
    result(page, "a black tree in winter")
    page.get_by_role("link", name="History").click()
    page.get_by_label("Search the words").fill("black tree in winter")
    cells = page.locator(".cell .open")
    expect(cells).to_have_count(1)
    cells.first.click()
    dialog = page.get_by_role("dialog", name="Picture")
    expect(dialog.get_by_text("Guidance 3.5")).to_be_visible()
    dialog.get_by_text("The whole request").click()
    expect(dialog.locator("pre")).to_contain_text('"guidance": 3.5')
    dialog.get_by_role("button", name="Make it again and compare").click()
    expect(
        dialog.get_by_text("Identical: made again from its own record, and every pixel is the same.")
    ).to_be_visible()
    dialog.get_by_role("button", name="Reuse").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a black tree in winter")
    expect(page.get_by_label("Seed", exact=True)).not_to_have_value("")
    assert ask(page, "/queue") == {"running": [], "queued": [], "paused": False}
