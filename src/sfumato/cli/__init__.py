"""The command line: parses, calls the engine, writes what came back. It never touches a tensor."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `sfumato` with arguments (those of the process by default) and leave with its exit code.

    0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    from sfumato.cli.app import run

    raise SystemExit(run(arguments))
