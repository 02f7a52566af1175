"""Create, from click to picture: words, keys, seeds, start pictures, others' settings, errors beside their field."""

import io
from typing import Any

from PIL import Image, PngImagePlugin
from playwright.sync_api import expect
from studio_flows import QUICK, ask, draw, pixels, result


def test_a_first_visitor_clicks_an_example_and_sees_a_picture(server: Any, tab: Any) -> None:
    page = tab(server)
    example = page.get_by_role("button", name="a red house on green grass")
    example.click()
    shown = result(page, "a red house on green grass")
    size = shown.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
    assert size == [128, 128]
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a red house on green grass")


def test_the_token_count_is_the_models(server: Any, tab: Any) -> None:
    page = tab(server)
    page.get_by_label("Prompt", exact=True).fill("a red house on green grass")
    expect(page.locator("#prompt-count")).to_have_text("6 of 75 tokens")
    page.get_by_label("Prompt", exact=True).fill("grass " * 80)
    expect(page.locator("#prompt-count")).to_contain_text("80 of 150 tokens in 2 parts")


def test_keys_weigh_the_words_selected(server: Any, tab: Any) -> None:
    page = tab(server)
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("a red house")
    prompt.evaluate("box => box.setSelectionRange(2, 5)")
    page.keyboard.press("Control+ArrowUp")
    page.keyboard.press("Control+ArrowUp")
    expect(prompt).to_have_value("a (red:1.2) house")
    for _ in range(3):
        page.keyboard.press("Control+ArrowDown")
    expect(prompt).to_have_value("a (red:0.9) house")
    page.keyboard.press("Control+ArrowUp")
    expect(prompt).to_have_value("a red house")
    prompt.evaluate("box => box.setSelectionRange(8, 8)")  # only a caret: the word that it is in
    page.keyboard.press("Control+ArrowUp")
    expect(prompt).to_have_value("a red (house:1.1)")


def test_words_that_the_model_knows_are_put_in_by_a_click(server: Any, tab: Any) -> None:
    page = tab(server)
    page.get_by_label("Prompt", exact=True).fill("a red")
    page.get_by_role("button", name="boat", exact=True).click()
    page.get_by_role("button", name="Backgrounds").click()
    page.get_by_role("button", name="at sunset", exact=True).click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a red boat at sunset")


def test_progress_is_shown_and_a_job_is_cancelled(server: Any, tab: Any) -> None:
    page = tab(server, draft={"steps": 1000})
    draw(page, "a white boat on the sea")
    stage = page.get_by_role("region", name="Result")
    expect(stage.get_by_text("Step")).to_contain_text("of 1000")
    expect(stage.get_by_role("img", name="So far")).to_be_visible()
    stage.get_by_role("button", name="Cancel").click()
    expect(stage.get_by_role("button", name="Cancel")).to_have_count(0)
    jobs = [job for job in ask(page, "/jobs")["jobs"] if job["request"]["steps"] == 1000]
    assert jobs[0]["state"] == "cancelled"


def test_the_pictures_of_a_job_are_numbered_from_one(server: Any, tab: Any) -> None:
    page = tab(server, draft={"steps": 30, "count": 2})
    page.evaluate(
        """() => {
            window.said = []
            new MutationObserver(() => {
                const line = document.querySelector('.live .line p')
                if (line) window.said.push(line.textContent.replace(/.*?(picture .*? of .*?) .*/, '$1'))
            }).observe(document.body, { subtree: true, childList: true, characterData: true })
        }"""
    )
    draw(page, "two red balls")
    result(page, "two red balls")
    expect(page.get_by_role("toolbar", name="Drawn in this tab").get_by_role("button")).to_have_count(2)
    numbered = {each for each in page.evaluate("said") if each.startswith("picture")}
    assert numbered == {"picture 1 of 2", "picture 2 of 2"}


def test_what_is_wrong_stands_beside_its_field(server: Any, tab: Any) -> None:
    page = tab(server, draft={"steps": 4})
    page.get_by_text("Advanced").click()
    page.get_by_label("Steps", exact=True).fill("5000")
    page.get_by_text("Advanced").click()
    draw(page, "a red house")
    steps = page.get_by_label("Steps", exact=True)
    expect(steps).to_be_visible()  # the drawer opens for it
    expect(steps).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#steps-error")).to_contain_text("5000")
    steps.fill("4")
    page.get_by_role("button", name="Draw", exact=False).first.click()
    result(page, "a red house")
    expect(page.locator("#steps-error")).to_have_count(0)


def test_the_same_seed_gives_the_same_picture_and_the_strip_is_walked_by_keys(server: Any, tab: Any) -> None:
    page = tab(server, draft=QUICK)
    draw(page, "a yellow star at night")
    result(page, "a yellow star at night")
    page.get_by_role("button", name="Reuse the last seed").click()
    seed = page.get_by_label("Seed", exact=True).input_value()
    draw(page, "a yellow star at night")
    strip = page.get_by_role("toolbar", name="Drawn in this tab")
    expect(strip.get_by_role("button", name="a yellow star at night", exact=True)).to_have_count(2)
    jobs = [job for job in ask(page, "/jobs")["jobs"] if job["request"]["seed"] == int(seed)]
    assert len({job["pictures"][0]["sha256"] for job in jobs}) == 1 and len(jobs) == 2
    first, second = strip.get_by_role("button").all()
    expect(first).to_have_attribute("aria-pressed", "true")
    first.focus()
    page.keyboard.press("ArrowRight")
    expect(second).to_be_focused()
    expect(second).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Home")
    expect(first).to_be_focused()
    page.get_by_role("button", name="Look at it large").click()
    large = page.get_by_role("dialog", name="Large view")
    expect(large.get_by_role("button", name="Previous")).to_be_disabled()
    page.keyboard.press("ArrowRight")
    expect(large.get_by_role("button", name="Next")).to_be_disabled()
    page.keyboard.press("Escape")
    expect(second).to_have_attribute("aria-pressed", "true")  # what was looked at last


def test_settings_are_read_from_a_dropped_picture_of_another_tool(server: Any, tab: Any) -> None:
    page = tab(server)
    texts = PngImagePlugin.PngInfo()
    texts.add_text(
        "parameters",
        "a blue car in the snow\nNegative prompt: a tree\n"
        "Steps: 7, Sampler: Euler a, CFG scale: 3.5, Seed: 18446744073709551615, Size: 128x96, Model: other",
    )
    file = io.BytesIO()
    Image.new("RGB", (128, 96), "navy").save(file, "PNG", pnginfo=texts)
    transfer = page.evaluate_handle(
        """bytes => {
            const transfer = new DataTransfer()
            transfer.items.add(new File([new Uint8Array(bytes)], 'other.png', { type: 'image/png' }))
            return transfer
        }""",
        list(file.getvalue()),
    )
    page.dispatch_event(".create", "drop", {"dataTransfer": transfer})
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a blue car in the snow")
    expect(page.get_by_label("Without")).to_have_value("a tree")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("18446744073709551615")
    expect(page.get_by_role("spinbutton", name="Height")).to_have_value("96")
    page.get_by_text("Advanced").click()
    expect(page.get_by_label("Steps", exact=True)).to_have_value("7")
    expect(page.get_by_label("Guidance", exact=True)).to_have_value("3.5")
    page.keyboard.press("Control+Enter")
    result(page, "a blue car in the snow")
    job = next(job for job in ask(page, "/jobs")["jobs"] if job["request"]["prompt"] == "a blue car in the snow")
    assert job["request"]["seed"] == 2**64 - 1  # to the last digit, which a number of the browser does not hold


def test_a_start_picture_is_taken_from_a_file_and_changed(server: Any, tab: Any) -> None:
    page = tab(server, draft=QUICK)
    file = io.BytesIO()
    Image.new("RGB", (128, 128), (200, 30, 40)).save(file, "PNG")
    page.get_by_label("Start picture from a file").set_input_files(
        {"name": "red.png", "mimeType": "image/png", "buffer": file.getvalue()}
    )
    expect(page.get_by_role("img", name="What to start from")).to_be_visible()
    page.get_by_label("Strength of the change").fill("0.25")
    draw(page, "a red ball")
    shown = result(page, "a red ball")
    red, green, blue = pixels(page, shown.get_attribute("src")).resize((1, 1)).getpixel((0, 0))
    assert red > 120 and green < 110 and blue < 110  # a quarter of the steps leaves it red
    page.get_by_role("button", name="Remove the start picture").click()
    expect(page.get_by_role("img", name="What to start from")).to_have_count(0)
    page.get_by_role("button", name="from history").click()
    page.get_by_role("dialog", name="Choose from history").get_by_role("button", name="a red ball").first.click()
    expect(page.get_by_role("img", name="What to start from")).to_be_visible()
    page.get_by_role("button", name="Remove the start picture").click()
    page.evaluate(
        """bytes => {
            const clipboardData = new DataTransfer()
            clipboardData.items.add(new File([new Uint8Array(bytes)], 'pasted.png', { type: 'image/png' }))
            document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }))
        }""",
        list(file.getvalue()),
    )
    expect(page.get_by_role("img", name="What to start from")).to_be_visible()


def test_more_like_this_variations_and_a_larger_one(server: Any, tab: Any) -> None:
    page = tab(server, draft=QUICK)
    draw(page, "a purple fish on the sea")
    result(page, "a purple fish on the sea")
    strip = page.get_by_role("toolbar", name="Drawn in this tab")
    strip = strip.get_by_role("button", name="a purple fish on the sea", exact=True)
    page.get_by_role("button", name="More like this").click()
    expect(strip).to_have_count(5)
    page.get_by_role("button", name="Vary").click()
    expect(strip).to_have_count(9)
    expect(page.get_by_text("Strength")).to_be_visible()
    page.get_by_role("button", name="Enlarge").click()
    expect(page.get_by_text("256 × 256")).to_be_visible()
    shown = result(page, "a purple fish on the sea")
    assert pixels(page, shown.get_attribute("src")).size == (256, 256)
