"""The canvas: the mask is what was painted, at the picture's size; what is not masked stays; the picture grows."""

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from studio_flows import PHONE, QUICK, ask, draw, pixels, result

Level = Callable[[Page], np.ndarray]


@pytest.fixture
def painted(server: Any, tab: Any) -> Page:
    """The canvas with a picture on it."""
    page: Page = tab(server, draft=QUICK)
    draw(page, "a red house on green grass")
    result(page, "a red house on green grass")
    page.get_by_role("button", name="Canvas", exact=True).click()
    expect(page.get_by_role("application")).to_be_visible()
    expect(page.get_by_label("The whole picture in words")).to_have_value("a red house on green grass")
    return page


def shown_mask(page: Page) -> np.ndarray:
    """How strongly each pixel of the picture is veiled, 0 to 1."""
    script = """() => {
        const canvas = document.querySelectorAll('.board canvas')[1]
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
        return [canvas.width, canvas.height, [...data].filter((_, i) => i % 4 === 3)]
    }"""
    width, height, values = page.evaluate(script)
    return np.array(values, dtype=float).reshape(height, width) / (0.58 * 255)


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where on the screen a point of the picture is; x and y as shares of its sides."""
    box = page.locator(".sheet").bounding_box()
    assert box is not None
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def stroke(page: Page, *points: tuple[float, float]) -> None:
    """Paint through points."""
    page.mouse.move(*place(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*place(page, *point), steps=8)
    page.mouse.up()


def test_the_mask_is_what_was_painted_and_the_rest_of_the_picture_stays(painted: Page) -> None:
    page = painted
    page.get_by_label("Hardness").fill("1")
    page.get_by_label("Size", exact=True).fill("0.25")  # of 128 pixels: a brush of 32
    stroke(page, (0.25, 0.5), (0.75, 0.5))
    page.get_by_label("The whole picture in words").fill("a blue boat on green grass")
    before = page.evaluate("JSON.parse(localStorage['sfumato.draft']).steps")
    assert before == 4
    page.get_by_role("button", name="Draw").click()
    strip = page.get_by_role("toolbar", name="Candidates to look at")
    expect(strip.get_by_role("button")).to_have_count(3)
    job = next(job for job in ask(page, "/jobs")["jobs"] if job["request"]["prompt"] == "a blue boat on green grass")
    mask = np.array(pixels(page, f"/sfumato/v1/uploads/{job['request']['mask']}/file").convert("L"))
    assert mask.shape == (128, 128)
    rows, columns = np.mgrid[:128, :128] + 0.5
    distance = np.hypot(columns - np.clip(columns, 32, 96), rows - 64)  # to the line that was drawn
    assert (mask[distance < 14] == 255).all() and (mask[distance > 18] == 0).all()
    old = np.array(pixels(page, f"/sfumato/v1/uploads/{job['request']['image']}/file"))
    new = np.array(pixels(page, job["pictures"][0]["file"]))
    assert (old[mask == 0] == new[mask == 0]).all()  # byte for byte
    assert (old[mask == 255] != new[mask == 255]).any()


def test_candidates_are_compared_accepted_discarded_and_taken_back(painted: Page) -> None:
    page = painted
    stroke(page, (0.3, 0.3), (0.6, 0.6))
    page.get_by_role("button", name="Draw").click()
    strip = page.get_by_role("toolbar", name="Candidates to look at").get_by_role("button")
    expect(strip).to_have_count(3)
    candidate = page.locator(".sheet img")
    page.get_by_label("Before and after").fill("40")
    expect(candidate).to_have_css("clip-path", "inset(0px 0px 0px 40%)")
    page.get_by_role("button", name="Discard").click()
    expect(strip).to_have_count(2)
    second = candidate.get_attribute("src")
    page.get_by_role("button", name="Accept").click()
    expect(strip).to_have_count(0)
    assert shown_mask(page).max() == 0
    assert page.get_by_role("link", name="Download the picture").get_attribute("href") == second
    page.get_by_role("button", name="Undo").click()
    assert shown_mask(page).max() > 0.9  # the picture and the mask of before
    assert page.get_by_role("link", name="Download the picture").get_attribute("href") != second


def test_the_tools_fill_invert_clear_erase_and_every_step_is_undone(painted: Page) -> None:
    page = painted
    page.get_by_role("button", name="Mask everything").click()
    assert shown_mask(page).min() > 0.98
    page.get_by_role("application").focus()
    page.keyboard.press("e")
    stroke(page, (0.5, 0.5), (0.5, 0.6))
    erased = shown_mask(page)
    assert erased[66, 64] == 0 and erased[5, 5] > 0.98
    page.get_by_role("button", name="Invert the mask").click()
    inverted = shown_mask(page)
    assert inverted[66, 64] > 0.98 and inverted[5, 5] == 0
    page.get_by_role("button", name="Clear the mask").click()
    assert shown_mask(page).max() == 0
    for _ in range(2):
        page.keyboard.press("Control+z")
    assert np.array_equal(shown_mask(page), erased)
    page.keyboard.press("Control+Shift+z")
    assert np.array_equal(shown_mask(page), inverted)


def test_a_pen_paints_with_its_pressure_and_arrow_keys_paint_too(painted: Page) -> None:
    page = painted
    widths = []
    for height, pressure in ((0.3, 0.3), (0.7, 0.9)):
        for kind, x in (("pointerdown", 0.2), ("pointermove", 0.5), ("pointermove", 0.8), ("pointerup", 0.8)):
            left, top = place(page, x, height)
            event = {"pointerId": 1, "pointerType": "pen", "pressure": pressure, "clientX": left, "clientY": top}
            page.evaluate(
                """([kind, options]) => {
                    const board = document.querySelector('.board')
                    board.setPointerCapture = () => {} // there is no such pen
                    board.dispatchEvent(new PointerEvent(kind, { bubbles: true, button: 0, ...options }))
                }""",
                [kind, event],
            )
        widths.append(int((shown_mask(page)[:, 64] > 0.5).sum()) - sum(widths))
    assert 0 < widths[0] < widths[1] / 2
    page.get_by_role("button", name="Clear the mask").click()
    page.get_by_role("application").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    mask = shown_mask(page)
    assert mask[64, 68] > 0.9 and mask[5, 5] == 0


def test_two_fingers_zoom_and_do_not_paint(painted: Page) -> None:
    page = painted
    before = page.locator(".sheet").bounding_box()
    page.evaluate(
        """() => {
            const board = document.querySelector('.board')
            board.setPointerCapture = () => {}
            const { left, top, width, height } = board.getBoundingClientRect()
            const at = (kind, id, dx) => board.dispatchEvent(new PointerEvent(kind, { bubbles: true, button: 0,
                pointerId: id, pointerType: 'touch', clientX: left + width / 2 + dx, clientY: top + height / 2 }))
            at('pointerdown', 1, -50); at('pointerdown', 2, 50)
            at('pointermove', 1, -100); at('pointermove', 2, 100)
            at('pointerup', 1, -100); at('pointerup', 2, 100)
        }"""
    )
    after = page.locator(".sheet").bounding_box()
    assert before is not None and after is not None
    assert after["width"] == pytest.approx(2 * before["width"], rel=0.01)


def test_a_side_is_extended_and_the_new_part_is_drawn(painted: Page) -> None:
    page = painted
    handle = page.get_by_role("button", name="Extend the picture: right")
    handle.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".sheet")).to_have_css("width", "160px")
    mask = shown_mask(page)
    assert mask.shape == (128, 160)
    assert mask[:, 128:].min() > 0.98 and mask[:, :96].max() == 0  # the new part, fading into a quarter of the old
    assert (np.diff(mask[64, 95:129]) >= 0).all() and 0.4 < mask[64, 112] < 0.6
    page.get_by_label("Candidates: 3").fill("1")
    page.get_by_role("button", name="Draw").click()
    expect(page.get_by_role("toolbar", name="Candidates to look at").get_by_role("button")).to_have_count(1)
    job = next(job for job in ask(page, "/jobs")["jobs"] if job["request"].get("masked_only"))
    assert (job["pictures"][0]["width"], job["pictures"][0]["height"]) == (160, 128)
    old = np.array(pixels(page, f"/sfumato/v1/uploads/{job['request']['image']}/file"))
    new = np.array(pixels(page, job["pictures"][0]["file"]))
    assert (old[:, :96] == new[:, :96]).all()
    page.keyboard.press("Control+z")
    expect(page.locator(".sheet")).to_have_css("width", "128px")


def press(page: Page, side: str) -> None:
    """Press the handle at a side with a pointer that slips a little, as pointers do."""
    box = page.get_by_role("button", name=f"Extend the picture: {side}").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 2, box["y"] + box["height"] / 2 + 1)
    page.mouse.up()


def test_two_sides_are_pressed_one_after_the_other_and_what_comes_is_taken_back(painted: Page) -> None:
    page = painted
    for side in ("right", "bottom"):
        press(page, side)  # the first has not come back from the server when the second is asked for
    page.get_by_label("Candidates: 3").fill("2")
    page.get_by_role("button", name="Draw").click()  # nor has the second
    expect(page.get_by_role("alert")).to_have_count(0)
    strip = page.get_by_role("toolbar", name="Candidates to look at").get_by_role("button")
    expect(strip).to_have_count(2)
    job = next(job for job in ask(page, "/jobs")["jobs"] if job["request"].get("masked_only"))
    old = np.array(pixels(page, f"/sfumato/v1/uploads/{job['request']['image']}/file"))
    mask = np.array(pixels(page, f"/sfumato/v1/uploads/{job['request']['mask']}/file").convert("L"))
    assert old.shape[:2] == mask.shape == (160, 160)
    assert mask[128:].min() == mask[:, 128:].min() == 255 and mask[:96, :96].max() == 0
    first = np.array(pixels(page, job["pictures"][0]["file"]))
    assert (old[mask == 0] == first[mask == 0]).all()
    page.get_by_role("button", name="Accept").click()
    expect(strip).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(strip).to_have_count(2)  # the other candidate can still be taken
    expect(page.locator(".sheet")).to_have_css("width", "160px")


def test_the_picture_is_shown_whole_when_the_window_changes_its_size(painted: Page) -> None:
    page = painted

    def within() -> bool:
        sheet, board = page.locator(".sheet").bounding_box(), page.locator(".board").bounding_box()
        assert sheet is not None and board is not None
        right, below = (sheet[at] + sheet[side] for at, side in (("x", "width"), ("y", "height")))
        return (
            sheet["x"] >= board["x"]
            and sheet["y"] >= board["y"]
            and right <= board["x"] + board["width"]
            and below <= board["y"] + board["height"]
        )

    assert within()
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(300)
    assert within()
    page.set_viewport_size({"width": 1440, "height": 900})
    page.get_by_role("button", name="Larger view").click()
    kept = page.locator(".sheet").get_attribute("style")
    page.set_viewport_size({"width": 1300, "height": 900})
    page.wait_for_timeout(300)
    assert page.locator(".sheet").get_attribute("style") == kept  # as it was set by hand


def test_a_handle_is_dragged_and_a_file_is_opened(server: Any, tab: Any) -> None:
    page = tab(server, "#/canvas")
    file = io.BytesIO()
    Image.new("RGB", (96, 64), "teal").save(file, "PNG")
    page.get_by_label("Picture from a file").set_input_files(
        {"name": "teal.png", "mimeType": "image/png", "buffer": file.getvalue()}
    )
    expect(page.locator(".sheet")).to_have_css("width", "96px")
    handle = page.get_by_role("button", name="Extend the picture: bottom")
    box = handle.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    scale = page.locator(".sheet").bounding_box()["width"] / 96
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + 24 * scale, steps=5)
    page.mouse.up()
    expect(page.locator(".sheet")).to_have_css("height", "88px")
    picture = page.get_by_role("link", name="Download the picture").get_attribute("href")
    deadline = time.monotonic() + 60
    while picture not in (page.evaluate("sessionStorage['sfumato.canvas']") or "") and time.monotonic() < deadline:
        page.wait_for_timeout(100)  # the page keeps what is on the canvas a moment after each change
    page.reload()  # the work is still there
    expect(page.locator(".sheet")).to_have_css("height", "88px")


def test_how_the_mask_acts_is_chosen_and_what_steers_on_create_comes_along(painted: Page) -> None:
    page = painted
    stroke(page, (0.25, 0.5), (0.75, 0.5))
    page.get_by_label("The mask is").select_option("blend")
    page.get_by_label("Grey in it is").select_option("differential")
    page.get_by_label("Soft edge").fill("4")
    page.get_by_label("As on Create, too: steps").check()
    page.get_by_label("Candidates: 3").fill("1")
    page.keyboard.press("Control+Enter")
    candidates = page.get_by_role("toolbar", name="Candidates to look at").get_by_role("button")
    expect(candidates).to_have_count(1)
    asked = next(job["request"] for job in ask(page, "/jobs")["jobs"] if job["request"].get("mask"))
    assert (asked["masking"], asked["differential"], asked["mask_blur"], asked["steps"]) == ("blend", True, 4, 4)
    page.get_by_label("The mask is").select_option("network")  # which grey means nothing to
    page.get_by_role("button", name="Draw", exact=False).click()
    expect(page.get_by_role("alert")).to_contain_text("done by blending")
    page.get_by_label("Grey in it is").select_option("")
    page.get_by_role("button", name="Draw", exact=False).click()
    expect(candidates).to_have_count(2)
    expect(page.get_by_role("alert")).to_have_count(0)
    asked = next(job["request"] for job in ask(page, "/jobs")["jobs"] if job["request"].get("mask"))
    assert asked["masking"] == "network" and "differential" not in asked
    page.get_by_label("The mask is").select_option("blend")
    page.get_by_label("Grey in it is").select_option("soft_inpainting")
    page.get_by_label("Kept", exact=True).fill("0.8")
    page.get_by_label("Kept more at first").fill("2")
    page.get_by_label("Contrast of what is between").fill("8")
    page.get_by_label("Change: 100 %").fill("0.5")
    page.get_by_label("Under the mask at first").select_option("fill")
    page.get_by_role("button", name="Draw", exact=False).click()
    expect(candidates).to_have_count(3)
    asked = next(job["request"] for job in ask(page, "/jobs")["jobs"] if job["request"].get("mask"))
    assert (asked["masked_content"], asked["strength"]) == ("fill", 0.5)
    assert asked["soft_inpainting"] == {
        "preservation_strength": 0.8,
        "schedule_bias": 2,
        "transition_contrast_boost": 8,
        "mask_influence": 0,  # these three as they come
        "difference_threshold": None,
        "difference_contrast": 2,
    }


def test_drawing_without_a_mask_says_what_to_do(painted: Page) -> None:
    page = painted
    page.get_by_role("button", name="Draw").click()
    expect(page.get_by_role("alert")).to_contain_text("Paint over the part")
