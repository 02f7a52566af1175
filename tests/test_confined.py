"""What a child that reads a stranger's file could do with a reader in that stranger's hands."""

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sfumato.confined import environment, program

SCRIPT = """
import json, os, resource, signal, socket, sys
from pathlib import Path
from sfumato.confined import address_space, give_up
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
before = address_space()
give_up(memory=2**28, seconds=7, written=1000, files=12)
kinds = ("RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_CPU", "RLIMIT_NOFILE", "RLIMIT_CORE")
told = {name: resource.getrlimit(getattr(resource, name))[0] for name in kinds}
told["beyond"] = told["RLIMIT_AS"] - before
status = Path("/proc/self/status")
if status.exists():
    told["no new privileges"] = dict(line.split(":\\t", 1) for line in status.read_text().splitlines())["NoNewPrivs"]
try:
    Path(sys.argv[1]).write_bytes(bytes(2000))
except OSError as error:
    told["written"] = type(error).__name__
try:
    bytearray(2**29)
except MemoryError:
    told["memory"] = "refused"
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=2).close()
    told["connected"] = True
except OSError:
    told["connected"] = False
told["environment"] = sorted(os.environ)
sys.stdout.write(json.dumps(told))
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("A_SECRET", "of this process")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = [str(tmp_path / "written"), str(listener.getsockname()[1])]
        command = [*program("")[:-2], "-c", SCRIPT, *arguments]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def may_be_alone() -> bool:
    """Can a process have a network of its own here?"""
    script = (
        "import ctypes; library = ctypes.CDLL(None); print(library.unshare(0x40000000) and library.unshare(0x50000000))"
    )
    return subprocess.run([*program("")[:-2], "-c", script], capture_output=True, text=True).stdout.strip() == "0"


def test_a_child_has_little_and_cannot_have_more(told: dict[str, Any], tmp_path: Path) -> None:
    assert abs(told["beyond"] - 2**28) < 2**22
    assert (told["RLIMIT_FSIZE"], told["RLIMIT_CPU"], told["RLIMIT_NOFILE"], told["RLIMIT_CORE"]) == (1000, 7, 12, 0)
    assert told["memory"] == "refused"
    assert told["written"] == "OSError" and (tmp_path / "written").stat().st_size <= 1000
    assert told.get("no new privileges", "1") == "1"


def test_a_child_inherits_no_secret(told: dict[str, Any]) -> None:
    assert "A_SECRET" not in told["environment"] and "PYTHONPATH" in told["environment"]


@pytest.mark.skipif(not may_be_alone(), reason="a network of one's own needs namespaces")
def test_a_child_reaches_nobody(told: dict[str, Any]) -> None:
    assert told["connected"] is False
