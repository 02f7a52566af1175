"""The catalogue learns what models are beside everything else, and stops learning when the server ends."""

import logging
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sfumato.server.problems import Problem
from sfumato.server.service import Service
from sfumato.server.settings import Settings

PROGRAM = """
import sys, time
from pathlib import Path
sys.path.insert(0, {folder!r})
from stub import Stub, describe
from sfumato.server.worker import serve
if sys.argv[1] == "draw":
    serve(Stub)
time.sleep({before})
describe(Path(sys.argv[2]), sys.argv[3:])
"""


def slow_settings(settings: Settings, before: float) -> Settings:
    """A server whose models are described after so many seconds."""
    program = PROGRAM.format(folder=str(Path(__file__).parent), before=before)
    return replace(settings, program=(sys.executable, "-c", program))


def test_who_waits_for_what_is_not_known_yet_is_told_when_the_server_stops(settings: Settings) -> None:
    service = Service(slow_settings(settings, 60))
    service.start()
    told: list[str] = []

    def ask() -> None:
        try:
            service.catalogue.samplers()
        except Problem as problem:
            told.append(problem.code)

    waits = threading.Thread(target=ask)
    waits.start()
    time.sleep(0.2)
    started = time.monotonic()
    service.stop()
    waits.join()
    assert told == ["stopping"]
    assert time.monotonic() - started < 10  # and not when the child is done


@pytest.mark.parametrize("after", [0.0, 0.15, 0.3, 0.45, 0.6])
def test_nothing_is_learnt_once_the_database_is_closed(
    settings: Settings, caplog: pytest.LogCaptureFixture, after: float
) -> None:
    with caplog.at_level(logging.WARNING):
        service = Service(slow_settings(settings, 0.2))
        service.start()
        time.sleep(after)
        service.stop()
        time.sleep(0.1)
    assert "described" not in caplog.text
