"""Prompts as the command line gives them: words, `@FILE` or `-` for one a line, `@@` for words that begin with @."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from sfumato.errors import PromptError


def read_prompts(arguments: Sequence[str], stdin: TextIO | None = None) -> tuple[str, ...]:
    """The prompts that the arguments stand for, in order; empty lines of files are left out.

    Raises PromptError for a file that cannot be read, and when no prompt is left.
    """
    prompts: list[str] = []
    for argument in arguments:
        if argument == "-":
            prompts += _lines((stdin or sys.stdin).read())
        elif argument.startswith("@@") or not argument.startswith("@"):
            prompts.append(argument.removeprefix("@"))
        else:
            prompts += _lines(_text(Path(argument[1:]).expanduser()))
    if not prompts:
        raise PromptError(f"there is no prompt in {' '.join(arguments)}; give one a line", "prompt")
    return tuple(prompts)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}", "prompt") from error
    except OSError as error:
        raise PromptError(
            f"{path}: {error.strerror}; @FILE reads prompts from a file, @@ begins a prompt with @", "prompt"
        ) from error
