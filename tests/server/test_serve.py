"""`sfumato serve` as people start it, with the engine and the embedded model."""

import asyncio
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from PIL import Image

import sfumato
from sfumato.cli.app import run
from sfumato.server.run import listen
from sfumato.server.settings import Settings


def test_help_is_quick_and_loads_nothing_of_the_server() -> None:
    code = "import sys, sfumato.cli\ntry:\n    sfumato.cli.main(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
    code += "print([name for name in ('torch', 'fastapi', 'uvicorn', 'PIL', 'httpx2') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "--allow-host" in done.stdout


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert run(["serve", "--port", port, "--data", str(tmp_path / "data")]) == 1


def test_the_second_half_of_an_answer_does_not_wait_for_the_clients_word_about_the_first(tmp_path: Path) -> None:
    """Which comes 40 ms later (Nagle's rule, and delayed acknowledgement): asyncio sends at once where it sees TCP."""
    told: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def ask() -> None:
        listener = listen(Settings(data=tmp_path, port=0))
        server = await asyncio.start_server(answer, sock=listener)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        await reader.read()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    with ThreadPoolExecutor(1) as apart:  # from a browser's loop, which may run in this thread
        apart.submit(asyncio.run, ask()).result()
    assert told and told[0]


def test_a_model_that_is_not_there_is_refused_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, told in (("drawn-wrold", "Did you mean 'drawn-world'?"), (str(tmp_path), "gives one a name")):
        assert run(["serve", "--port", "0", "--model", name, "--data", str(tmp_path / "data")]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"sfumato: no model {name!r}; there are drawn-world") and told in said
    assert not (tmp_path / "data").exists()


def test_a_served_picture_is_the_one_that_is_drawn_here(tmp_path: Path) -> None:
    environment = {**os.environ, "SFUMATO_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "sfumato", "serve", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        address = re.fullmatch(r"sfumato serves at (http://127\.0\.0\.1:\d+)\n", told)
        assert address is not None, told
        with sfumato.Client(address[1]) as client:
            job = client.submit(sfumato.Request(prompt="a red house on green grass", seed=5, steps=3))
            done = client.wait(job.id, 120)
            assert done.state == "done", done
            [picture] = client.pictures(done)
            replay = httpx2.post(f"{address[1]}/sfumato/v1/pictures/{done.pictures[0].id}/replay").json()
            result = client.wait(replay["id"], 60).result
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert process.wait(30) == 0
        assert time.monotonic() - started < 10
    [here] = sfumato.generate(sfumato.load(), sfumato.Request(prompt="a red house on green grass", seed=5, steps=3))
    assert picture.tobytes() == here.tobytes()
    assert result is not None and result["outcome"] == "identical"
    files = list((tmp_path / "home" / "server" / "pictures").rglob("*.png"))
    assert [Image.open(io.BytesIO(file.read_bytes())).tobytes() for file in files] == [here.tobytes()]
