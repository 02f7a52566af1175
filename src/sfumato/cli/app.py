"""The verbs under one command, and how it ends: exit codes, and errors as one paragraph."""

import logging
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import typer

import sfumato
from sfumato.cli import (
    batching,
    bench,
    data,
    demo,
    drawing,
    encoding,
    evaluation,
    machine,
    models,
    pictures,
    plotting,
    scenes,
    serve,
    steering,
    training,
    upscaling,
)
from sfumato.cli.guides import PARTS
from sfumato.cli.options import NUMBER, SIZE
from sfumato.cli.progress import is_verbose
from sfumato.errors import OutputFormatError, RequestError, SfumatoError, reason

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="sfumato",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
VERB_FILES = (
    drawing,
    upscaling,
    plotting,
    batching,
    encoding,
    pictures,
    steering,
    evaluation,
    training,
    machine,
    bench,
    demo,
    serve,
)
for verbs in (file.app for file in VERB_FILES):
    app.registered_commands += verbs.registered_commands
app.add_typer(models.app, name="models")
app.add_typer(scenes.app, name="scenes")
app.add_typer(data.app, name="data")
VERBS = {str(command.name) for command in app.registered_commands} | {
    str(group.name) for group in app.registered_groups
}


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sfumato {sfumato.__version__}")
        raise typer.Exit


@app.callback()
def _sfumato(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Stable Diffusion: trains it, runs it and proves it.

    `sfumato VERB --help` explains a verb.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. What fails is told in one paragraph on stderr."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    logging.captureWarnings(True)
    given = with_values_left_out(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = app(given, "sfumato", standalone_mode=False)
    except typer.TyperException as wrong:
        return _told(_usage(wrong, given), wrong.exit_code)
    except Exception as failure:
        return _told(*_explained(failure))
    if code == INTERRUPTED:  # typer's exit code for Ctrl-C, too
        return _told("interrupted; what was finished is kept.", INTERRUPTED)
    return code if isinstance(code, int) else DONE


def with_values_left_out(arguments: Sequence[str]) -> list[str]:
    """The arguments with a value for options whose value is left out: a bare `--grid`, or what is on by itself."""
    return [f"{word}{_left_out(word, following)}" for word, following in pairwise([*arguments, ""])]


def _left_out(word: str, following: str) -> str:
    """The value that an option has when what follows is none."""
    if word == "--grid" and not SIZE.fullmatch(following):
        return "=auto"
    another = not following or (following.startswith("-") and not NUMBER.fullmatch(following))
    return "=on" if word in PARTS and another else ""


def _usage(wrong: typer.TyperException, given: Sequence[str]) -> str:
    verb = next((word for word in given if not word.startswith("-")), "")
    about = f"{verb} " if verb in VERBS else ""
    return f"{wrong.format_message().rstrip('.')}. `sfumato {about}--help` explains the usage."


def _explained(failure: Exception) -> tuple[str, int]:
    """What to say of a failure, and the exit code."""
    if isinstance(failure, RequestError | OutputFormatError):
        return str(failure), WRONG_USAGE
    if isinstance(failure, SfumatoError):
        return str(failure), FAILED
    if isinstance(failure, MemoryError):
        return "the memory is not enough. Make smaller pictures, or fewer together with --batch 1.", FAILED
    if isinstance(failure, OSError):
        return f"{_refused(failure)}. Check the path, its permissions and the space on the disk.", FAILED
    return f"an unexpected {type(failure).__name__}: {failure} Run it again with -v for the details.", FAILED


def _refused(failure: OSError) -> str:
    """What the system refuses, by its path and without the system's number for it."""
    return reason(failure) if failure.filename is None else f"{failure.filename}: {reason(failure)}"


def _told(text: str, code: int) -> int:
    """Tell people on stderr what happened, with the traceback when verbose, and return the exit code."""
    if is_verbose() and sys.exc_info()[0] is not None:
        traceback.print_exc()
    sys.stderr.write(f"sfumato: {' '.join(text.split())}\n")
    return code
