"""No text of a client, in any field or path, opens a file outside of what the server has opened to it."""

import io
import itertools
import os
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from servers import ADDRESS
from starlette.testclient import TestClient

from sfumato.server.inside import open_inside
from sfumato.server.texts import ROLES

API = "/sfumato/v1"
CANARY = "the canary sings"
NAMES = ("canary", "canary.safetensors", "canary.png", "canary.txt", "canary/")
CLIMBS = (
    "../",
    "..\\",
    "..%2f",
    "%2e%2e/",
    "%2e%2e%2f",
    "..%252f",
    "....//",
    "..;/",
    ".%00./",
    "．．/",
    "..／",
    "..//./",
)
ROOTS = (
    "",
    "/",
    "//",
    "file://",
    "file:///",
    "~/",
    "$HOME/",
    "C:\\",
    "\\\\host\\",
    "/proc/self/root/",
    "./",
    "sha256:",
)
SHAPES: dict[str, Any] = {
    "prompt": lambda text: {"prompt": text},
    "prompt[]": lambda text: {"prompt": ["x", text]},
    "hires.upscaler": lambda text: {"hires": {"scale": 2, "upscaler": text}},
    "hires.sampler": lambda text: {"hires": {"scale": 2, "sampler": text}},
    "hires.spacing": lambda text: {"hires": {"scale": 2, "spacing": text}},
    "hires.prompt": lambda text: {"hires": {"scale": 2, "prompt": text}},
    "hires.negative_prompt": lambda text: {"hires": {"scale": 2, "negative_prompt": text}},
    "loras[].name": lambda text: {"loras": [{"name": text}]},
    "embeddings[].name": lambda text: {"embeddings": [{"name": text, "word": "w"}]},
    "embeddings[].word": lambda text: {"embeddings": [{"name": "none", "word": text}]},
    "controls[].model": lambda text: {"controls": [{"model": text}]},
    "controls[].image": lambda text: {"controls": [{"model": "none", "image": text}]},
    "controls[].preprocessor": lambda text: {"controls": [{"model": "none", "preprocessor": text}]},
    "controls[].task": lambda text: {"controls": [{"model": "none", "task": text}]},
    "perturbed_attention.layers[]": lambda text: {"perturbed_attention": {"layers": [text]}},
    "image_prompts[].model": lambda text: {"image_prompts": [{"model": text, "images": []}]},
    "image_prompts[].images[]": lambda text: {"image_prompts": [{"model": "none", "images": [text]}]},
    "image_prompts[].encoder": lambda text: {"image_prompts": [{"model": "none", "images": [], "encoder": text}]},
    "image_prompts[].mask": lambda text: {"image_prompts": [{"model": "none", "images": [], "mask": text}]},
    "regions[].prompt": lambda text: {"regions": [{"prompt": text, "area": [0, 0, 0.5, 1]}]},
    "regions[].negative_prompt": lambda text: {"regions": [{"prompt": "x", "negative_prompt": text}]},
    "regions[].mask": lambda text: {"regions": [{"prompt": "x", "mask": text}]},
    "styles[]": lambda text: {"styles": [text]},
    "refiner.model": lambda text: {"refiner": {"model": text}},
}
PATHS = ("pictures/{}", "pictures/{}/file", "pictures/{}/thumbnail", "uploads/{}/file", "jobs/{}", "models/{}")
PAGES = ("/assets/{}", "/{}", "/sfumato/v1/../{}", "/v1/images/files/{}.png", "/sdapi/v1/{}")


def payloads(outside: Path) -> list[str]:
    """Ways to a file outside: more than five hundred, each other than the others."""
    found = [str(outside / name) for name in NAMES]
    for root, climb, depth, name in itertools.product(ROOTS, CLIMBS, (1, 3, 12), NAMES[:2]):
        found.append(f"{root}{climb * depth}{name}")
    found += [f"<lora:{text}:1>" for text in found[:24]] + [f"__{text}__" for text in found[:24]]
    found += [f"{name}\0.png" for name in NAMES] + [f"sha256:{'a' * 58}{climb}" for climb in CLIMBS]
    return list(dict.fromkeys(found))


@contextmanager
def watched() -> Iterator[list[str]]:
    """The places of all files that this process opens meanwhile."""
    opened: list[str] = []
    watching = [True]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], str | bytes):
            opened.append(os.fsdecode(arguments[0]))

    sys.addaudithook(watch)
    try:
        yield opened
    finally:
        watching.clear()


def test_every_text_of_a_request_has_a_shape_here() -> None:
    assert set(ROLES) - set(SHAPES) <= {"negative_prompt", "model", "vae", "sampler", "spacing", "image", "mask"}


def test_some_ways_out_of_every_field_and_path_lead_nowhere(start: Any, tmp_path: Path) -> None:
    every = payloads(tmp_path)
    assert len(every) > 500
    lead_nowhere(start, tmp_path, random.Random(1).sample(every, 12))


@pytest.mark.slow
def test_five_hundred_ways_out_of_every_field_and_path_lead_nowhere(start: Any, tmp_path: Path) -> None:
    lead_nowhere(start, tmp_path, payloads(tmp_path))


def lead_nowhere(start: Any, outside: Path, texts: list[str]) -> None:
    for name in NAMES[:-1]:
        (outside / name).write_text(CANARY)
    client: TestClient = start()
    client.post(f"{API}/jobs", json={"request": {"prompt": "a slow first", "steps": 1000}})  # the others wait
    fields = {name: SHAPES.get(name, lambda text, name=name: {name: text}) for name in ROLES}
    with watched() as opened:
        for text in texts:
            for name, shape in fields.items():
                answer = client.post(f"{API}/jobs", json={"request": {"prompt": "x", **shape(text)}})
                taken = (202, 422) if ROLES[name] == "words" else (422,)
                assert answer.status_code in taken, (name, text, answer.text)
                check(answer.content, outside)
            for path in (*(f"{API}/{each}" for each in PATHS), *PAGES):
                check(client.get(ADDRESS + path.format(text.replace("\0", "%00"))).content, outside)
            check(client.post(f"{API}/tokens", json={"prompt": text, "model": text}).content, outside)
            body = {"prompt": text, "override_settings": {"sd_model_checkpoint": text, "sd_vae": text}}
            check(client.post("/sdapi/v1/txt2img", json=body).content, outside)
            client.post(f"{API}/queue/clear")
    asked = [path for path in opened if "canary" in path]
    assert asked == []


def check(content: bytes, outside: Path) -> None:
    """No answer has what is in the file, and none says where the server's own files lie."""
    assert CANARY.encode() not in content
    assert str(outside / "data").encode() not in content


def upload(client: TestClient, colour: str) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, "PNG")
    answer = client.post(f"{API}/uploads", content=buffer.getvalue(), headers={"content-type": "image/png"})
    return str(answer.json()["id"])


@pytest.mark.parametrize("kind", ["a file", "its folder"])
def test_a_link_that_leads_out_is_not_followed(start: Any, tmp_path: Path, kind: str) -> None:
    client: TestClient = start()
    id = upload(client, "red")
    uploads = tmp_path / "data" / "uploads"
    name = next(uploads.glob("*.png")).name
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / name).write_text(CANARY)
    if kind == "a file":
        (uploads / name).unlink()
        (uploads / name).symlink_to(tmp_path / "outside" / name)
    else:
        uploads.rename(tmp_path / "data" / "before")
        uploads.symlink_to(tmp_path / "outside")
    with watched() as opened:
        answer = client.get(f"{API}/uploads/{id}/file")
        assert (answer.status_code, answer.json()["code"]) == (410, "picture.gone")
        assert client.post(f"{API}/jobs", json={"request": {"prompt": "x", "image": id}}).status_code == 422
    assert not any("outside" in path for path in opened)


def test_a_link_that_is_put_there_after_the_look_is_not_followed(start: Any, tmp_path: Path) -> None:
    """Another program swaps file and link, thousands of times, while the file is asked for."""
    client: TestClient = start()
    id = upload(client, "red")
    place = next((tmp_path / "data" / "uploads").glob("*.png"))
    whole = place.read_bytes()
    (tmp_path / "outside").write_text(CANARY)
    over = threading.Event()

    def swap() -> None:
        aside = tmp_path / "aside"
        while not over.is_set():
            aside.symlink_to(tmp_path / "outside")
            os.replace(aside, place)
            aside.write_bytes(whole)
            os.replace(aside, place)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        answers = [client.get(f"{API}/uploads/{id}/file") for _ in range(300)]
    finally:
        over.set()
        swapping.join()
    assert {answer.status_code for answer in answers} <= {200, 410}
    assert {answer.content for answer in answers if answer.status_code == 200} == {whole}


def test_what_is_opened_is_below_the_folder_and_no_link_pipe_or_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "a").mkdir(parents=True)
    (home / "a" / "file").write_bytes(b"x")
    (tmp_path / "secret").write_text(CANARY)
    (home / "a" / "link").symlink_to(tmp_path / "secret")
    (home / "b").symlink_to(home / "a")
    os.mkfifo(home / "a" / "pipe")
    (tmp_path / "other").symlink_to(home)
    for folder in (home, tmp_path / "other"):  # the folder itself may be a link
        with open_inside(folder, folder / "a" / "file") as file:
            assert file.read() == b"x"
    for wrong in ("a/link", "b/file", "a/pipe", "a", "a/../../secret", "none"):
        with pytest.raises(OSError):
            open_inside(home, home / wrong)
