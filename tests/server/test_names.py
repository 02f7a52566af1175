"""Files that a request names: those of the registry, the same when it is drawn as when it was accepted."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from starlette.testclient import TestClient

from sfumato.weights.locate import add_alias

API = "/sfumato/v1"


@pytest.fixture
def named(start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    for name in ("ink", "paper"):
        save_file({name: torch.zeros(1)}, tmp_path / f"{name}.safetensors")
        add_alias(name, tmp_path / f"{name}.safetensors", kind="lora")
    client: TestClient = start()
    return client


def ended(client: TestClient, id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while (job := client.get(f"{API}/jobs/{id}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return job  # type: ignore[no-any-return]  # JSON


def test_names_of_the_registry_are_listed_and_taken(named: TestClient) -> None:
    listed = named.get(f"{API}/loras").json()["loras"]
    assert [each["name"] for each in listed] == ["ink", "paper"]
    for request in ({"prompt": "x", "loras": [["ink", 0.5]]}, {"prompt": "x <lora:paper:0.7>"}):
        answer = named.post(f"{API}/jobs", json={"request": request})
        assert answer.status_code == 202, answer.text
        assert ended(named, answer.json()["id"])["state"] == "done"


def test_a_lora_in_a_prompt_is_a_name_too(named: TestClient, tmp_path: Path) -> None:
    for place in (str(tmp_path / "ink.safetensors"), "../ink", "ink.safetensors/", "nothing"):
        answer = named.post(f"{API}/jobs", json={"request": {"prompt": f"x <lora:{place}:1>"}})
        assert (answer.status_code, answer.json()["field"]) == (422, "prompt")


def test_a_file_that_is_another_when_it_is_drawn_is_not_used(named: TestClient, tmp_path: Path) -> None:
    named.post(f"{API}/jobs", json={"request": {"prompt": "a slow start", "steps": 30}})
    waits = named.post(f"{API}/jobs", json={"request": {"prompt": "x", "loras": ["ink"]}}).json()["id"]
    save_file({"other": torch.zeros(1)}, tmp_path / "ink.safetensors")
    job = ended(named, waits)
    assert (job["state"], job["error"]["code"]) == ("failed", "file.changed")


@pytest.mark.parametrize(
    "request_",
    [
        {"prompt": "x <lo{ra|ra}:/etc/passwd:1>"},
        {"prompt": ["x", "y <lora:{/etc/passwd}:1>"], "count": 2},
        {"prompt": "x", "regions": [{"prompt": "y <lo{ra|ra}:/etc/passwd:1>", "area": [0, 0, 0.5, 1]}]},
        {"prompt": "x", "styles": ["stranger"]},
    ],
)
def test_a_lora_that_is_only_there_once_the_prompt_is_drawn_is_a_name_too(
    named: TestClient, tmp_path: Path, request_: dict[str, Any]
) -> None:
    (tmp_path / "home" / "styles.csv").write_text("name,prompt,negative_prompt\nstranger,<lora:/etc/passwd:1>,\n")
    answer = named.post(f"{API}/jobs", json={"request": request_})
    assert (answer.status_code, answer.json()["field"]) == (422, "prompt"), answer.text
    assert "no lora's name" in answer.json()["detail"]


def test_a_lora_that_a_wildcard_names_only_when_it_is_drawn_is_not_used(named: TestClient, tmp_path: Path) -> None:
    (tmp_path / "home" / "wildcards").mkdir()
    (tmp_path / "home" / "wildcards" / "kind.txt").write_text("ink")
    body = {"request": {"prompt": "x <lora:__kind__:1>"}}
    assert ended(named, named.post(f"{API}/jobs", json=body).json()["id"])["state"] == "done"
    named.post(f"{API}/jobs", json={"request": {"prompt": "a slow start", "steps": 30}})
    waits = named.post(f"{API}/jobs", json=body).json()["id"]
    (tmp_path / "home" / "wildcards" / "kind.txt").write_text("paper")
    job = ended(named, waits)
    assert (job["state"], job["error"]["code"]) == ("failed", "words.changed")
