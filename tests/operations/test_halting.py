"""Ending early with what there is: the pictures as the network sees them after a step, and what their metadata says."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_models import SIZE, scene

from sfumato.engine import Engine
from sfumato.events import Event, Finished, Halt, Progress
from sfumato.generation import stream
from sfumato.metadata import describe, save
from sfumato.model import Model
from sfumato.replay import replay
from sfumato.request import Request


def request(**changes: object) -> Request:
    fields = {"prompt": "a red house", "seed": 11, "steps": 4, "guidance": 5.0, "width": SIZE, "height": SIZE}
    return Request(**{**fields, **changes})  # type: ignore[arg-type]


def after(step: int, wish: str) -> Halt:
    """Halts once, when it is asked for the time that is `step`."""
    wishes: Iterator[str | None] = iter([*[None] * (step - 1), wish])
    return lambda: next(wishes, None)  # type: ignore[return-value]


def pictures(events: Iterator[Event]) -> list[Finished]:
    return [event for event in events if isinstance(event, Finished)]


def test_a_stop_keeps_what_was_finished_and_the_batch_as_it_is(tiny: Model) -> None:
    whole = pictures(stream(tiny, request(count=3), metadata=False))
    found = pictures(stream(tiny, request(count=3), metadata=False, halt=after(6, "stop")))
    assert [(each.index, each.seed, each.halted_at) for each in found] == [(0, 11, None), (1, 12, 2)]
    assert found[0].picture.tobytes() == whole[0].picture.tobytes()
    assert found[1].picture.tobytes() != whole[1].picture.tobytes()
    assert found[1].picture.size == (SIZE, SIZE)


def test_a_skip_goes_on_with_the_next_batch(tiny: Model) -> None:
    whole = pictures(stream(tiny, request(count=4, batch=2), metadata=False))
    found = pictures(stream(tiny, request(count=4, batch=2), metadata=False, halt=after(1, "skip")))
    assert [(each.index, each.halted_at) for each in found] == [(0, 1), (1, 1), (2, None), (3, None)]
    for one, other in zip(found[2:], whole[2:], strict=True):
        assert one.picture.tobytes() == other.picture.tobytes()


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "Heun"])
def test_a_halt_at_the_last_step_is_nearly_the_whole_picture(tiny: Model, sampler: str) -> None:
    """These samplers' last step goes to the network's own last answer, at level 0."""
    (whole,) = pictures(stream(tiny, request(sampler=sampler), metadata=False))
    (found,) = pictures(stream(tiny, request(sampler=sampler), metadata=False, halt=after(4, "stop")))
    difference = [abs(a - b) for a, b in zip(found.picture.tobytes(), whole.picture.tobytes(), strict=True)]
    assert max(difference) <= 1  # rounding: x and the answer are computed in two ways


def test_nothing_is_halted_that_is_not_asked(tiny: Model) -> None:
    events = list(stream(tiny, request(), metadata=False, halt=lambda: None))
    assert [event.step for event in events if isinstance(event, Progress)] == [1, 2, 3, 4]


def test_a_halted_picture_says_so_and_is_made_again(tiny: Model, tmp_path: Path) -> None:
    place = str(tiny.source)
    (found,) = pictures(Engine().run(request(model=place, sampler="euler_a"), halt=after(2, "stop")))
    path = save(found.picture, tmp_path / "halted.png")
    read = describe(path)
    assert read.record is not None and read.record["halted_at"] == 2
    assert "Halted at step: 2" in read.texts["parameters"]
    assert replay(path).outcome == "identical"


def test_a_halted_inpainting_keeps_what_is_outside_of_the_mask(tiny: Model) -> None:
    picture, mask = scene(), scene().convert("L").point(lambda level: 0)
    mask.paste(255, (0, 0, SIZE // 2, SIZE))
    events = stream(tiny, request(strength=1.0), image=picture, mask=mask, metadata=False, halt=after(1, "stop"))
    (found,) = pictures(events)
    right = (SIZE // 2, 0, SIZE, SIZE)
    assert found.picture.crop(right).tobytes() == picture.crop(right).tobytes()
