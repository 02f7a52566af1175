"""What is wrong is said in one form and in good words: codes from one table, and the texts that people read."""

import ast
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

import sfumato
from sfumato.server.codes import CODES
from sfumato.server.problems import TABLE
from sfumato.server.queue import CRASHED
from sfumato.server.settings import Limits

SERVER = Path(sfumato.__file__).parent / "server"
ROOT = Path(__file__).parents[2]
API = "/sfumato/v1"
GOLDEN = json.loads(Path(__file__).with_name("errors.json").read_text(encoding="utf-8"))
"""[method, path, what is sent, status, code, detail, hint]: what was read and found good."""


def png(size: tuple[int, int] = (16, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return buffer.getvalue()


def huge() -> bytes:
    """A small file whose header says a hundred thousand pixels a side."""
    header = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + png()[24:29]
    return png()[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png()[33:]


BODIES: dict[str, bytes] = {
    "empty": b"",
    "text": b"no picture",
    "half": png()[:40],
    "huge": huge(),
    "long": b"x" * (33 * 2**20),
}


def send(client: TestClient, method: str, path: str, sent: dict[str, Any]) -> Any:
    """One request: `json`, `body` (a name of BODIES, or the text itself), `headers`, `form`."""
    given: dict[str, Any] = {"headers": sent.get("headers", {})}
    if "json" in sent:
        given["json"] = sent["json"]
    if "body" in sent:
        given["content"] = BODIES.get(sent["body"], sent["body"].encode())
    if "form" in sent:
        given["files"] = {name: (None, text) for name, text in sent["form"].items()}
    return client.request(method, path, **given)


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{row[0]} {row[1]} {json.dumps(row[2])[:60]}")
def test_an_answer_says_what_was_found_and_what_would_be_right(shared: TestClient, row: list[Any]) -> None:
    method, path, sent, status, code, detail, hint = row
    answer = send(shared, method, path, sent)
    told = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, told["code"], told["detail"], told.get("hint")) == (status, code, detail, hint)
    assert told["status"] == status and told["type"] == "about:blank" and told["title"]


def test_there_are_sixty_texts_of_many_codes() -> None:
    assert len({(row[4], row[5]) for row in GOLDEN}) >= 60
    assert len({row[4] for row in GOLDEN}) >= 30
    for *_, detail, hint in GOLDEN:
        assert detail[0] not in "\"'" and "Traceback" not in detail and " object at " not in detail
        assert hint is None or len(hint) < 200


def codes_used() -> Iterator[tuple[str, int | None]]:
    """The codes that the server's sources use, and the statuses beside them; not those of OpenAI's own words."""
    for path in sorted(SERVER.rglob("*.py")):
        if path.name.startswith("openai") or path.name == "codes.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
            if named.lower() not in ("problem", "_refused"):
                continue
            status, code, *_ = node.args  # type: ignore[attr-defined]
            if isinstance(code, ast.Constant):
                yield str(code.value), status.value if isinstance(status, ast.Constant) else None
            elif isinstance(code, ast.JoinedStr):
                yield "request.FIELD", None
    yield from ((code, status) for _, status, code, _ in TABLE)
    yield CRASHED["code"], None
    for name in ast.walk(ast.parse((SERVER / "app.py").read_text(encoding="utf-8"))):
        if isinstance(name, ast.Assign) and ast.unparse(name.targets[0]) == "CODES":
            yield from ((code, status) for status, code in ast.literal_eval(name.value).items())


def test_every_code_that_is_used_is_in_the_table_and_no_other() -> None:
    used = list(codes_used())
    missing = {code for code, _ in used if code not in CODES and not code.startswith("request.")}
    assert missing == set()
    assert {code for code in CODES if code not in {each for each, _ in used}} == set()
    for code, status in used:
        stated = CODES.get(code, CODES["request.FIELD"]).status
        assert status is None or stated in (None, status) or code in ("model.unknown", "request.sampler"), (
            code,
            status,
        )


def test_the_page_about_errors_says_what_the_table_says() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = [
        f"| `{code}` | {'of a failed job' if each.status is None else each.status} | {each.meaning} |"
        for code, each in CODES.items()
    ]
    told = [line for line in page.splitlines() if line.startswith("| `")]
    assert told == rows


Make = Callable[..., TestClient]


def test_what_only_some_states_of_a_server_answer(start: Make, tmp_path: Path) -> None:
    locked: TestClient = start(data=tmp_path / "locked", token="a token of thirty-two characters")
    assert problem(locked.get(f"{API}/jobs")) == (401, "token", "this server asks for its token")
    few: TestClient = start(
        data=tmp_path / "few", limits=Limits(rate=0.001, burst=3, client_queue=1, reserve=0, spare=0)
    )
    slow = {"request": {"prompt": "slow", "steps": 1000}}
    answers = [problem(few.post(f"{API}/jobs", json=slow)) for _ in range(4)]
    assert answers[3] == (429, "rate", "too many requests at once; slow down")
    assert (429, "queue.full", "1 of your jobs wait, which is the most; try again when some are done") in answers
    full: TestClient = start(data=tmp_path / "full", limits=Limits(reserve=2**62))
    told = (507, "disk.full", "there is no room on the disk for more pictures; free some")
    assert problem(full.post(f"{API}/jobs", json=slow)) == told


def problem(answer: Any) -> tuple[int, str, str]:
    told = answer.json()
    return answer.status_code, told.get("code", ""), told.get("detail", "")
