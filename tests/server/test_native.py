"""The native API: from a request to pictures, and everything about them."""

import gzip
import hashlib
import io
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient
from stub import pixels

from sfumato.request import Request
from sfumato.server.page import studio
from sfumato.server.service import Service

API = "/sfumato/v1"


def post(client: TestClient, status: int = 202, /, **request: Any) -> dict[str, Any]:
    answer = client.post(f"{API}/jobs", json={"request": request})
    assert answer.status_code == status, answer.text
    return answer.json()


def ended(client: TestClient, id: str, seconds: float = 20.0) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = client.get(f"{API}/jobs/{id}").json()
        if job["state"] in ("done", "failed", "cancelled"):
            return job
        time.sleep(0.02)
    raise AssertionError(f"the job is still {job['state']}")


def png(size: tuple[int, int] = (64, 64), colour: str = "red", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_request_becomes_the_pictures_that_its_seed_says(client: TestClient) -> None:
    job = post(client, prompt="a red house", seed=7, count=2)
    assert job["state"] == "queued"
    done = ended(client, job["id"])
    assert done["state"] == "done"
    assert [each["seed"] for each in done["pictures"]] == [7, 8]
    for each in done["pictures"]:
        file = client.get(each["file"])
        assert file.headers["content-type"] == "image/png"
        drawn = Image.open(io.BytesIO(file.content))
        assert drawn.tobytes() == pixels("a red house", each["seed"], 64, 64)
        assert each["sha256"] == f"sha256:{hashlib.sha256(drawn.tobytes()).hexdigest()}"
        assert client.get(f"{API}/pictures/{each['id']}").json()["record"]["seed"] == each["seed"]


def test_all_is_decided_when_a_job_is_accepted(shared: TestClient) -> None:
    request = post(shared, prompt="a red house")["request"]
    again = Request.from_dict(request)
    assert again.model == "drawn-world"
    assert (again.width, again.height, again.steps, again.guidance, again.sampler) == (64, 64, 2, 2.5, "ddim")
    assert again.seed is not None


def test_a_body_that_breaks_off_is_told_with_the_place_and_no_field(shared: TestClient) -> None:
    broken = '{"request":\n {"prompt": }}'
    answer = shared.post(f"{API}/jobs", content=broken, headers={"Content-Type": "application/json"})
    told = answer.json()
    assert (answer.status_code, told["code"], "field" in told) == (422, "body.json", False)
    assert told["detail"] == "the body is not JSON: Expecting value: line 2 column 13 (char 24)"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"steps": 0}, "request.steps"),
        ({"prompt": "\0"}, "request.prompt"),
        ({"stepps": 3}, "request.stepps"),
        ({"model": "/etc/passwd"}, "request.model"),
        ({"vae": "../x"}, "request.vae"),
        ({"loras": ["/etc/passwd"]}, "request.loras"),
        ({"sampler": "none"}, "request.sampler"),
        ({"spacing": "none"}, "request.spacing"),
        ({"image": "/etc/passwd"}, "request.image"),
        ({"image": "sha256:" + "0" * 64}, "request.image"),
        ({"strength": 0.5}, "request.strength"),
        ({"mask": "sha256:" + "0" * 64}, "request.mask"),
        ({"controls": [{"model": "/etc/passwd"}]}, "request.controls"),
        ({"controls": [{"model": "tiny", "image": "/etc/passwd"}]}, "request.controls"),
        ({"image_prompts": [{"model": "/etc/passwd", "images": []}]}, "request.image_prompts"),
        ({"image_prompts": [{"model": "tiny", "images": ["/etc/passwd"]}]}, "request.image_prompts"),
        ({"refiner": {"model": "/etc/passwd"}}, "request.refiner"),
        ({"seed": 2**64}, "request.seed"),
    ],
)
def test_a_wrong_request_is_refused_by_the_name_of_its_field(
    shared: TestClient, request_: dict[str, Any], code: str
) -> None:
    answer = shared.post(f"{API}/jobs", json={"request": request_})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code


def test_a_picture_that_was_handed_in_is_the_start_of_another(shared: TestClient) -> None:
    upload = shared.post(f"{API}/uploads", content=png((48, 40)), headers={"content-type": "image/png"})
    assert upload.status_code == 201
    pixels_of_it = hashlib.sha256(Image.new("RGB", (48, 40), "red").tobytes()).hexdigest()
    assert upload.json() == {"id": f"sha256:{pixels_of_it}", "width": 48, "height": 40, "metadata": None}
    form = shared.post(
        f"{API}/uploads", files={"file": ("x", png((48, 40), "white", "L"))}, headers={"X-Requested-By": "x"}
    )
    mask = form.json()["id"]
    job = post(shared, prompt="again", image=upload.json()["id"], mask=mask, seed=1)
    assert (job["request"]["width"], job["request"]["height"], job["request"]["strength"]) == (48, 40, 1.0)
    assert ended(shared, job["id"])["state"] == "done"
    kept = shared.get(f"{API}/uploads/{mask}/file")
    assert Image.open(io.BytesIO(kept.content)).tobytes() == Image.new("L", (48, 40), "white").tobytes()


def test_uploads_of_one_colour_and_other_shapes_are_kept_apart(shared: TestClient) -> None:
    ids = set()
    for size in ((8, 8), (4, 16), (16, 4)):
        answer = shared.post(f"{API}/uploads", content=png(size)).json()
        ids.add(answer["id"])
        assert Image.open(io.BytesIO(shared.get(f"{API}/uploads/{answer['id']}/file").content)).size == size
    assert len(ids) == 3


def test_the_gallery_marks_bins_restores_and_finds(client: TestClient) -> None:
    done = ended(client, post(client, prompt="a blue boat", seed=1)["id"])
    ended(client, post(client, prompt="a red car", seed=1)["id"])
    id = done["pictures"][0]["id"]
    assert client.get(f"{API}/pictures?search=BOAT").json()["total"] == 1
    assert client.patch(f"{API}/pictures/{id}", json={"favourite": True}).json()["favourite"]
    assert [each["id"] for each in client.get(f"{API}/pictures?favourite=true").json()["pictures"]] == [id]
    assert client.delete(f"{API}/pictures/{id}").json()["deleted"]
    assert client.get(f"{API}/pictures").json()["total"] == 1
    assert client.get(f"{API}/pictures?deleted=true").json()["total"] == 1
    assert not client.post(f"{API}/pictures/{id}/restore").json()["deleted"]
    first = client.get(f"{API}/pictures?limit=1").json()
    second = client.get(f"{API}/pictures?limit=1&cursor={first['next']}").json()
    assert [first["pictures"][0]["prompt"], second["pictures"][0]["prompt"]] == ["a red car", "a blue boat"]
    assert second["next"] is None


def test_thumbnails_and_other_formats_are_made_once(shared: TestClient) -> None:
    picture = ended(shared, post(shared, prompt="a blue boat", seed=1)["id"])["pictures"][0]
    small = shared.get(f"{picture['thumbnail']}?size=30")
    assert Image.open(io.BytesIO(small.content)).size == (32, 32)
    other = shared.get(f"{picture['file']}?format=webp&download=1")
    assert "attachment" in other.headers["content-disposition"]
    opened = Image.open(io.BytesIO(other.content))
    assert opened.convert("RGB").tobytes() == pixels("a blue boat", 1, 64, 64)
    assert shared.post(f"{API}/read", content=other.content).json()["request"]["prompt"] == "a blue boat"


def test_a_retry_draws_the_same_and_a_replay_says_so(shared: TestClient) -> None:
    first = ended(shared, post(shared, prompt="a blue boat")["id"])
    again = shared.post(f"{API}/jobs/{first['id']}/retry")
    assert again.status_code == 202
    second = ended(shared, again.json()["id"])
    assert second["retry_of"] == first["id"]
    assert second["pictures"][0]["sha256"] == first["pictures"][0]["sha256"]
    replay = shared.post(f"{API}/pictures/{first['pictures'][0]['id']}/replay").json()
    assert ended(shared, replay["id"])["result"] == {"outcome": "identical", "detail": "64x64 was looked at"}


def test_a_replay_does_not_follow_a_link_in_the_pictures_place(
    client: TestClient, service: Service, tmp_path: Path
) -> None:
    picture = ended(client, post(client, prompt="a blue boat")["id"])["pictures"][0]
    (place,) = service.folders.pictures.rglob(f"{picture['id']}.png")
    place.rename(tmp_path / "outside.png")
    place.symlink_to(tmp_path / "outside.png")
    job = ended(client, client.post(f"{API}/pictures/{picture['id']}/replay").json()["id"])
    assert (job["state"], job["error"]["code"]) == ("failed", "picture.gone")
    assert job["error"]["detail"] == "the picture that is to be made again is not there any more"


def test_a_retry_keeps_no_picture_where_the_first_kept_none(client: TestClient, service: Service) -> None:
    first = service.submit({"prompt": "a blink"}, keep=False)
    ended(client, first.id)
    again = client.post(f"{API}/jobs/{first.id}/retry").json()
    assert len(ended(client, again["id"])["pictures"]) == 1
    assert client.get(f"{API}/pictures").json()["pictures"] == []


def test_the_catalogue_answers_without_torch(shared: TestClient) -> None:
    [model] = [each for each in shared.get(f"{API}/models").json()["models"] if each["default"]]
    assert model["name"] == "drawn-world" and model["defaults"]["steps"] == 2
    assert shared.get(f"{API}/models/drawn-world").json()["name"] == "drawn-world"
    assert shared.get(f"{API}/models/nothing").status_code == 404
    found = shared.post(f"{API}/tokens", json={"prompt": "a (red:1.3) house"}).json()
    assert [(each["text"], each["weight"]) for each in found["tokens"]] == [("a", 1), ("red", 1.3), ("house", 1)]
    assert "house" in shared.get(f"{API}/vocabulary").json()["objects"]
    assert shared.get(f"{API}/fields").json()["properties"]["steps"]["anyOf"][0]["maximum"] == 1000
    assert shared.get(f"{API}/samplers").json()["samplers"][0] == {"name": "ddim", "title": "DDIM"}
    assert shared.get("/health").json()["status"] == "ok"
    assert "sfumato_jobs" in shared.get("/metrics").text


def test_the_page_and_its_documentation_load_nothing_from_elsewhere(shared: TestClient) -> None:
    for path in ("/", "/docs"):
        answer = shared.get(path)
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "https://" not in answer.text


@pytest.mark.skipif(studio() is None, reason="the studio is not built here")
def test_the_pages_files_are_packed_and_what_may_hold_a_secret_is_not(shared: TestClient) -> None:
    folder = studio()
    assert folder is not None
    for file in (folder / "assets").iterdir():
        with shared.stream("GET", f"/assets/{file.name}", headers={"accept-encoding": "gzip"}) as answer:
            packed = b"".join(answer.iter_raw())
        assert (answer.headers["content-encoding"], answer.headers["vary"]) == ("gzip", "Accept-Encoding")
        assert "immutable" in answer.headers["cache-control"]
        assert len(packed) < 0.5 * file.stat().st_size and gzip.decompress(packed) == file.read_bytes()
        plain = shared.get(f"/assets/{file.name}", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers and plain.content == file.read_bytes()
        again = shared.get(f"/assets/{file.name}", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for path in ("/openapi.json", f"{API}/fields", f"{API}/jobs"):
        assert "content-encoding" not in shared.get(path, headers={"accept-encoding": "gzip"}).headers
