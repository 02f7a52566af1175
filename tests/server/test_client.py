"""`sfumato.Client` and `--server`: a picture drawn elsewhere comes back as one that was drawn here."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from servers import Running
from stub import pixels

import sfumato
from sfumato.cli.app import run
from sfumato.client import TRIES, Client
from sfumato.errors import ModelNotFoundError, RequestError, ServerError
from sfumato.events import Finished, Preview, Progress


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("server"), token="a token of many letters")
    yield running
    assert running.stop() == 0


@pytest.fixture
def remote(server: Running) -> Iterator[Client]:
    with sfumato.Client(server.address, token="a token of many letters") as client:
        yield client


def test_a_request_comes_back_as_pictures_with_their_metadata(remote: Client) -> None:
    job = remote.submit(sfumato.Request(prompt="a red house", seed=3, count=2))
    done = remote.wait(job.id, timeout=30)
    pictures = remote.pictures(done)
    assert [each.tobytes() for each in pictures] == [pixels("a red house", seed, 64, 64) for seed in (3, 4)]
    assert json.loads(pictures[1].info["sfumato"])["seed"] == 4
    assert remote.job(job.id).state == "done"


def test_its_events_are_those_of_an_engine(remote: Client) -> None:
    events = list(remote.run(sfumato.Request(prompt="a slow boat", seed=1, count=2)))
    assert [event.index for event in events if isinstance(event, Finished)] == [0, 1]
    assert any(isinstance(event, Progress) and event.step == 2 for event in events)
    assert any(isinstance(event, Preview) for event in events)
    assert events[-1].request.seed == 1  # type: ignore[union-attr]  # it is a Finished


def test_pictures_are_handed_over(remote: Client, tmp_path: Path) -> None:
    Image.new("RGB", (32, 48), "red").save(tmp_path / "start.png")
    request = sfumato.Request(prompt="again", image=str(tmp_path / "start.png"), seed=1)
    job = remote.submit(request, mask=Image.new("L", (32, 48), 255))
    assert (job.request["width"], job.request["height"]) == (32, 48)
    assert remote.wait(job.id, 30).state == "done"


def test_leaving_the_loop_cancels(remote: Client) -> None:
    events = remote.run(sfumato.Request(prompt="a slow boat", steps=1000))
    next(event for event in events if isinstance(event, Progress))
    events.close()  # type: ignore[attr-defined]  # it is a generator
    deadline = time.monotonic() + 10
    while not remote.jobs(limit=1)[0].over:
        assert time.monotonic() < deadline
    assert remote.jobs(limit=1)[0].state == "cancelled"


def test_a_halted_job_is_done_with_what_there_is(remote: Client) -> None:
    job = remote.submit(sfumato.Request(prompt="a slow boat", steps=1000, count=5))
    for event in remote.events(job.id):
        if event.kind == "progress":
            remote.halt(job.id)
            break
    done = remote.wait(job.id, 20)
    assert done.state == "done"
    assert len(done.pictures) == 1


def test_a_retry_whose_answer_is_lost_is_not_asked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def lost(method: str, place: str, **_: Any) -> httpx2.Response:
        asked.append(method)
        raise httpx2.ReadError("the connection was lost")

    with sfumato.Client("http://127.0.0.1:9") as client:
        monkeypatch.setattr(client._http, "request", lost)
        for call, times in ((client.retry, 1), (client.cancel, TRIES)):
            asked.clear()
            with pytest.raises(ServerError, match="no answer"):
                call("x")
            assert asked == ["POST"] * times


def test_what_is_wrong_comes_back_as_our_errors(remote: Client, server: Running) -> None:
    with pytest.raises(ModelNotFoundError, match="it must be one of"):
        remote.submit(sfumato.Request(prompt="x", model="nothing"))
    with pytest.raises(ModelNotFoundError, match="no lora's name"):
        remote.submit(sfumato.Request(prompt="x", loras=["nothing"]))
    with pytest.raises(RequestError, match="mask") as caught:
        remote.submit(sfumato.Request(prompt="x"), mask=Image.new("L", (8, 8)))
    assert caught.value.field == "mask"
    with pytest.raises(ServerError, match="something went wrong"):
        list(remote.run(sfumato.Request(prompt="broken")))
    with sfumato.Client(server.address) as stranger, pytest.raises(ServerError, match="--token"):
        stranger.models()
    with sfumato.Client("http://127.0.0.1:9") as nobody, pytest.raises(ServerError, match="sfumato serve"):
        nobody.models()


def test_an_address_without_its_beginning_is_refused_before_anything_is_asked() -> None:
    for wrong in ("127.0.0.1:7860", "foo", "ftp://foo", "http://", ""):
        with pytest.raises(RequestError, match=r"begins with http:// or https://"):
            sfumato.Client(wrong)


def test_what_a_server_does_not_have_ends_a_verb_as_what_is_not_here_does(server: Running) -> None:
    far = ["--server", server.address, "--token", "a token of many letters"]
    for wrong in (["-m", "nothing"], ["--lora", "nothing"]):
        assert (run(["txt2img", "a", *wrong, *far]), run(["txt2img", "a", *wrong])) == (1, 1)
    assert run(["txt2img", "a", "--sampler", "nothing", *far]) == run(["txt2img", "a", "--sampler", "nothing"]) == 2


def test_the_verbs_draw_on_a_server_with_the_output_of_a_drawing_here(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = ["--server", server.address, "--token", "a token of many letters", "--seed", "5"]
    assert run(["txt2img", "a red house", *far, "-o", str(tmp_path / "house.png")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'house.png'}\n"
    drawn = Image.open(tmp_path / "house.png")
    assert drawn.tobytes() == pixels("a red house", 5, 64, 64)
    assert sfumato.describe(tmp_path / "house.png").record is not None
    assert (
        run(["img2img", str(tmp_path / "house.png"), "a boat", *far, "--json", "-o", str(tmp_path / "boat.png")]) == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["finished"] and told["pictures"][0]["path"] == str(tmp_path / "boat.png")
    assert run(["txt2img", "x", *far, "--steps", "0"]) == 2
    assert run(["txt2img", "x", *far, "--device", "cpu"]) == 2
    assert run(["txt2img", "x", "--server", "http://127.0.0.1:9"]) == 1
