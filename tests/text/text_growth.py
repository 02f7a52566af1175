"""How much work a parser does, whatever else the machine does."""

import sys
from collections.abc import Callable

from sfumato.errors import PromptError


def lines_run(parse: Callable[[str], object], text: str) -> int:
    """How many lines of Python run while a prompt is parsed or refused."""
    count = 0

    def trace(frame: object, event: str, argument: object) -> object:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        parse(text)
    except PromptError:
        pass
    finally:
        sys.settrace(before)
    return count
