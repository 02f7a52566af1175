"""Downloads, from a hub that speaks the few words that they need: only here, on this machine."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from sfumato.errors import ModelFileError
from sfumato.weights.hub import Remote, choose, parted

COMMIT = "1" * 40
SOURCE = Path(__file__).parents[2] / "src"
FILES = {
    "org/lora": {
        "pytorch_lora_weights.safetensors": save({"a.lora_A.weight": torch.ones(400, 500)}),
        "README.md": b"# x",
    },
    "org/large": {"a.safetensors": save({"a.lora_A.weight": torch.ones(2000, 3500)})},  # beyond the library's pieces
    "org/two": {"a.safetensors": save({"a": torch.ones(3)}), "b.safetensors": save({"b": torch.ones(3)})},
}


class Hub(BaseHTTPRequestHandler):
    """Model information, and files with ranges. `cut` ends the first answer of a weight early; `damage` changes it."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, str | None]]
    cut = damage = False

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        self.seen.append((self.command, self.path, self.headers.get("Range")))
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.information("/".join(parts[2:4]))
        else:
            self.file("/".join(parts[:2]), "/".join(parts[4:]), body=body)

    def information(self, repository: str) -> None:
        if repository not in FILES:
            self.reply(404, {"X-Error-Code": "RepoNotFound"}, b"{}", True)
            return
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": 1, "pointerSize": 1},
            }
            for name, content in FILES[repository].items()
        ]
        told = {
            "id": repository,
            "modelId": repository,
            "sha": COMMIT,
            "siblings": siblings,
            "tags": [],
            "private": False,
        }
        self.reply(200, {"Content-Type": "application/json"}, json.dumps(told).encode(), True)

    def file(self, repository: str, name: str, *, body: bool) -> None:
        content = FILES.get(repository, {}).get(name)
        if content is None:
            self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"", body)
            return
        digest = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if self.damage:
            content = bytes(len(content))
        start, told = 0, self.headers.get("Range")
        if told and told.startswith("bytes=") and not told.startswith("bytes=0-0"):
            start = int(told.removeprefix("bytes=").split("-")[0])
        status = 206 if start else 200
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if self.cut and body and name.endswith(".safetensors") and not start:
            type(self).cut = False
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content[: len(content) * 3 // 4])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.reply(status, headers, content[start:], body)

    def reply(self, status: int, headers: dict[str, str], content: bytes, body: bool) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[tuple[type[Hub], str]]:
    """A hub that runs meanwhile, and its address."""
    handler = type("ThisHub", (Hub,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def sfumato(address: str, home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": address,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "SFUMATO_HOME": str(home / "sfumato"),
        "PYTHONPATH": str(SOURCE),
        **more,
    }
    return subprocess.run([sys.executable, "-m", "sfumato", *words], capture_output=True, text=True, env=environment)


def test_a_repository_is_downloaded_verified_named_and_found_without_the_network(
    hub: tuple[type[Hub], str], tmp_path: Path
) -> None:
    handler, address = hub
    done = sfumato(address, tmp_path, "models", "add", "org/lora", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["name"], told["place"], told["what"]) == ("lora", "org/lora", "lora")
    assert not any("README" in path for _, path, _ in handler.seen)  # nothing that is not needed
    asked = len(handler.seen)
    shown = sfumato(address, tmp_path, "models", "show", "lora", "--json", HF_HUB_OFFLINE="1")
    assert "LoRA" in json.loads(shown.stdout)["what"], shown.stderr
    assert len(handler.seen) == asked


@pytest.mark.parametrize("revision", ["fp16", COMMIT])
def test_a_revision_is_found_again_and_is_not_taken_for_main(
    hub: tuple[type[Hub], str], tmp_path: Path, revision: str
) -> None:
    _, address = hub
    done = sfumato(address, tmp_path, "models", "add", "half", f"org/lora@{revision}", "--json")
    assert done.returncode == 0, done.stderr
    for name in ("half", f"org/lora@{revision}"):
        shown = sfumato(address, tmp_path, "models", "show", name, "--json", HF_HUB_OFFLINE="1")
        assert "LoRA" in json.loads(shown.stdout)["what"], shown.stderr
    assert sfumato(address, tmp_path, "models", "show", "org/lora", HF_HUB_OFFLINE="1").returncode == 1


def test_a_download_that_was_cut_is_continued(hub: tuple[type[Hub], str], tmp_path: Path) -> None:
    handler, address = hub
    handler.cut = True
    done = sfumato(address, tmp_path, "models", "add", "org/large")
    if done.returncode:  # the library tries again itself, in some versions
        done = sfumato(address, tmp_path, "models", "add", "org/large")
    assert done.returncode == 0, done.stderr
    ranges = [told for command, path, told in handler.seen if command == "GET" and path.endswith(".safetensors")]
    assert any(told and told != "bytes=0-0" for told in ranges), ranges


def test_a_file_that_arrives_damaged_is_removed(hub: tuple[type[Hub], str], tmp_path: Path) -> None:
    handler, address = hub
    handler.damage = True
    done = sfumato(address, tmp_path, "models", "add", "org/lora")
    assert (done.returncode, "arrived damaged" in done.stderr) == (1, True), done.stderr
    assert not list((tmp_path / "hf").rglob("*.safetensors"))
    handler.damage = False
    assert sfumato(address, tmp_path, "models", "add", "org/lora").returncode == 0


def test_what_cannot_be_downloaded_says_where_was_looked(hub: tuple[type[Hub], str], tmp_path: Path) -> None:
    _, address = hub
    for words, more, says in (
        (("org/nothing",), {}, "the hub does not give it"),
        (("org/lora",), {"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub does not give it"),
        (("org/lora",), {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
    ):
        done = sfumato(address, tmp_path, "models", "add", *words, **more)
        assert done.returncode == 1, done.stdout
        assert says in done.stderr and str(tmp_path / "hf" / "hub") in done.stderr, done.stderr
    done = sfumato(address, tmp_path, "models", "add", "org/two")
    assert "Say org/two/FILE" in done.stderr and "a.safetensors, b.safetensors" in done.stderr, done.stderr


def names(*files: str) -> list[Remote]:
    return [Remote(file, 1, None) for file in files]


def test_of_a_model_s_repository_only_what_is_needed_is_chosen() -> None:
    components = [
        f"{component}/{file}"
        for component, stem in (
            ("unet", "diffusion_pytorch_model"),
            ("vae", "diffusion_pytorch_model"),
            ("text_encoder", "model"),
        )
        for file in (
            "config.json",
            f"{stem}.safetensors",
            f"{stem}.fp16.safetensors",
            f"{stem}.bin",
            "flax_model.msgpack",
        )
    ]
    rest = "model_index.json v1-5.ckpt v1-5.safetensors tokenizer/vocab.json tokenizer/merges.txt unet/model.onnx"
    beside = "scheduler/scheduler_config.json safety_checker/model.safetensors"
    files = names(*components, *rest.split(), *beside.split())
    chosen = {each.name for each in choose("o/n", files, None)}
    assert "unet/diffusion_pytorch_model.safetensors" in chosen and "tokenizer/merges.txt" in chosen
    assert not {name for name in chosen if "fp16" in name or "msgpack" in name or "v1-5" in name or "safety" in name}
    half = {each.name for each in choose("o/n", files, "fp16")}
    assert {name for name in half if name.endswith("safetensors")} == {
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.fp16.safetensors",
    }
    companion = names("inpainting.safetensors")
    assert "inpainting.safetensors" not in {each.name for each in choose("o/n", [*files, *companion], None)}
    ours = [*files, *companion, *names("sfumato.json")]
    assert {"inpainting.safetensors", "sfumato.json"} <= {each.name for each in choose("o/n", ours, None)}
    only_bin = [each for each in files if not each.name.endswith("safetensors")]
    assert "text_encoder/model.bin" in {each.name for each in choose("o/n", only_bin, None)}
    with pytest.raises(ModelFileError, match="not clear"):
        choose("o/n", names("a.ckpt", "b.ckpt"), None)


def test_a_place_on_a_hub_is_taken_apart() -> None:
    assert parted("org/name") == ("org/name", "main", None)
    assert parted("org/name@fp16") == ("org/name", "fp16", None)
    assert parted("org/name/sub/a.safetensors") == ("org/name", "main", "sub/a.safetensors")
