"""The queue: order, cancel, retry, failures in words; tabs that agree; what outlives a reload and a crash."""

import io
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect
from studio_flows import QUICK, ask, draw, result

LONG = 1000  # steps: the queue stands still behind it


def submit(page: Any, prompt: str, **fields: Any) -> Any:
    """A job of another client."""
    return ask(page, "/jobs", "POST", {"request": {"prompt": prompt, "steps": 4, **fields}})


def rows(page: Any) -> list[str]:
    """The titles of what runs and waits."""
    return page.get_by_role("region", name="Now and next").locator(".prompt").all_inner_texts()


def test_jobs_are_moved_cancelled_and_tried_again(own_server: Any, tab: Any) -> None:
    page = tab(own_server, "#/queue")
    expect(page.get_by_text("Nothing is waiting")).to_be_visible()
    submit(page, "the long one", steps=LONG)
    for name in ("first", "second", "third"):
        submit(page, name)
    now = page.get_by_role("region", name="Now and next")
    expect(now.get_by_role("listitem")).to_have_count(4)
    expect(now.get_by_text("Step")).to_contain_text(f"of {LONG}")
    assert rows(page) == ["the long one", "first", "second", "third"]
    now.get_by_role("listitem").filter(has_text="third").get_by_role("button", name="Draw it first").click()
    expect(now.locator(".prompt").nth(1)).to_have_text("third")
    now.get_by_role("listitem").filter(has_text="third").get_by_role("button", name="Later").click()
    expect(now.locator(".prompt").nth(1)).to_have_text("first")
    assert rows(page) == ["the long one", "first", "third", "second"]
    now.get_by_role("listitem").filter(has_text="second").get_by_role("button", name="Cancel").click()
    expect(now.get_by_role("listitem")).to_have_count(3)
    ended = page.get_by_role("region", name="Ended")
    expect(ended.get_by_role("listitem").filter(has_text="second")).to_contain_text("Cancelled")
    ended.get_by_role("listitem").filter(has_text="second").get_by_role("button", name="Try again").click()
    expect(now.get_by_role("listitem")).to_have_count(4)
    now.get_by_role("listitem").filter(has_text="the long one").get_by_role("button", name="Cancel").click()
    expect(ended.get_by_text("Done")).to_have_count(3)
    expect(page.get_by_text("Nothing is waiting")).to_be_visible()


def carry(page: Any, title: str, onto: str) -> None:
    """Drag a waiting job by its grip onto another one."""
    rows = page.get_by_role("region", name="Now and next").get_by_role("listitem")
    grip = rows.filter(has_text=title).locator(".grip").bounding_box()
    target = rows.filter(has_text=onto).bounding_box()
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    page.mouse.move(target["x"] + 20, target["y"] + target["height"] / 2, steps=6)
    page.mouse.up()


def test_jobs_are_dragged_to_another_place(own_server: Any, tab: Any) -> None:
    page = tab(own_server, "#/queue")
    submit(page, "the long one", steps=LONG)
    for name in ("first", "second", "third", "fourth"):
        submit(page, name)
    prompts = page.get_by_role("region", name="Now and next").locator(".prompt")
    expect(prompts).to_have_text(["the long one", "first", "second", "third", "fourth"])
    expect(page.locator(".grip")).to_have_count(4)  # what runs has no other place
    carry(page, "third", "first")
    expect(prompts).to_have_text(["the long one", "third", "first", "second", "fourth"])
    carry(page, "third", "second")
    expect(prompts).to_have_text(["the long one", "first", "second", "third", "fourth"])
    carry(page, "first", "fourth")  # to the end, which no job is behind
    expect(prompts).to_have_text(["the long one", "second", "third", "fourth", "first"])
    carry(page, "second", "second")
    expect(prompts).to_have_text(["the long one", "second", "third", "fourth", "first"])
    assert [job["title"] for job in ask(page, "/queue")["queued"]] == ["second", "third", "fourth", "first"]
    other = tab(own_server, "#/queue", beside=page)
    shown = other.get_by_role("region", name="Now and next").locator(".prompt")
    expect(shown).to_have_text(["the long one", "second", "third", "fourth", "first"])
    carry(page, "first", "third")
    expect(shown).to_have_text(["the long one", "second", "first", "third", "fourth"])  # in the other tab, too


def test_what_failed_says_why_in_words(own_server: Any, tab: Any) -> None:
    page = tab(own_server, "#/queue")
    submit(page, "the long one", steps=LONG)
    file = io.BytesIO()
    Image.new("RGB", (128, 128), "red").save(file, "PNG")
    upload = page.request.post(
        f"{own_server.address}/sfumato/v1/uploads",
        data=file.getvalue(),
        headers={"Content-Type": "image/png"},
    ).json()
    submit(page, "from a picture", image=upload["id"])
    for stored in (own_server.folder / "data").rglob(f"{upload['id'].removeprefix('sha256:')}*"):
        stored.unlink()  # as a careless hand does
    page.get_by_role("listitem").filter(has_text="the long one").get_by_role("button", name="Cancel").click()
    failed = page.get_by_role("region", name="Ended").get_by_role("listitem").filter(has_text="from a picture")
    expect(failed).to_contain_text("Failed")
    words = failed.locator(".error").inner_text()
    assert words.startswith("The picture or the mask that it begins with is missing or damaged: ")
    assert "Errno" not in words and str(own_server.folder) not in words
    expect(failed.get_by_role("button", name="Try again")).to_be_visible()


def test_two_tabs_agree(server: Any, tab: Any) -> None:
    first = tab(server, draft=QUICK)
    second = tab(server, "#/history", beside=first)
    second.get_by_label("Search the words").fill("crescent moon over the ocean")
    expect(second.get_by_text("No picture fits the search")).to_be_visible()
    draw(first, "a crescent moon over the ocean")
    result(first, "a crescent moon over the ocean")
    cell = second.locator(".cell")
    expect(cell).to_have_count(1)
    first.get_by_role("button", name="Favourite", exact=True).click()
    expect(cell.locator(".star")).to_be_visible()
    first.get_by_role("button", name="Delete", exact=True).click()
    expect(cell).to_have_count(0)
    first.get_by_role("button", name="Undo").click()
    expect(cell).to_have_count(1)


def test_a_reload_in_mid_job_goes_on(server: Any, tab: Any) -> None:
    page = tab(server, draft={"steps": 60})
    draw(page, "a white flower in a green meadow")
    expect(page.get_by_role("region", name="Result").get_by_text("Step")).to_contain_text("of 60")
    page.reload()
    expect(page.get_by_role("region", name="Result").get_by_text("of 60")).to_be_visible()
    result(page, "a white flower in a green meadow")


@pytest.mark.slow
def test_a_crash_of_the_server_in_mid_job_is_waited_for_and_goes_on(own_server: Any, tab: Any) -> None:
    page = tab(own_server, draft={"steps": 40})
    draw(page, "a purple car in the snow")
    expect(page.get_by_role("region", name="Result").get_by_text("Step")).to_contain_text("of 40")
    own_server.kill()
    expect(page.get_by_text("Reconnecting")).to_be_visible()
    own_server.start()
    expect(page.get_by_text("Reconnecting")).to_have_count(0)
    result(page, "a purple car in the snow")
    assert ask(page, "/jobs")["jobs"][0]["attempt"] == 2


@pytest.mark.slow
def test_a_slow_network_is_only_slow(server: Any, tab: Any) -> None:
    page = tab(server, draft=QUICK)
    devtools = page.context.new_cdp_session(page)
    devtools.send("Network.enable")
    devtools.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 600, "downloadThroughput": 40_000, "uploadThroughput": 20_000},
    )
    page.reload()
    draw(page, "a red fish on blue water")
    result(page, "a red fish on blue water")
    expect(page.locator("#prompt-count")).to_contain_text("of 75 tokens")
