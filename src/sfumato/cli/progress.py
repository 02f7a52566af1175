"""What is told on stderr beside errors: the bar, on a terminal only, and notes for people."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console


class Bar(Protocol):
    """Tells how far a job is."""

    def __call__(self, text: str, done: float = 0, total: float | None = None) -> None: ...


def is_quiet() -> bool:
    """Was --quiet given?"""
    return not logging.getLogger().isEnabledFor(logging.WARNING)


def is_verbose() -> bool:
    """Was --verbose given?"""
    return logging.getLogger("sfumato").isEnabledFor(logging.DEBUG)


def console() -> "Console":
    """Where people read: stderr, silent when quiet."""
    from rich.console import Console

    return Console(stderr=True, quiet=is_quiet())


def note(text: str) -> None:
    """Tell people something on stderr, unless quiet."""
    if not is_quiet():
        sys.stderr.write(f"{text}\n")


def complain(text: str) -> None:
    """Tell people on stderr what failed, when quiet too."""
    sys.stderr.write(f"{text}\n")


def _told_when_verbose(text: str, done: float = 0, total: float | None = None) -> None:
    logging.getLogger("sfumato").debug("%s", text if total is None else f"{text} {done:g}/{total:g}")


@contextmanager
def progress() -> Iterator[Bar]:
    """A bar to call with a text and how much is done; without a terminal, or when quiet, nothing is drawn."""
    if not sys.stderr.isatty() or is_quiet():
        yield _told_when_verbose
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # paths that go into a pipe must not be taken to the terminal; those that share it must not be drawn over
    with Progress(*columns, console=console(), transient=True, redirect_stdout=sys.stdout.isatty()) as shown:
        task = shown.add_task("", total=None)

        def show(text: str, done: float = 0, total: float | None = None) -> None:
            shown.update(task, description=text, completed=done, total=total)

        yield show
