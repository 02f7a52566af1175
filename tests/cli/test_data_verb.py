"""data check as a process: what goes to stdout, and how wrong input is told."""

import json
from pathlib import Path

from cli_run import Run


def test_rendered_scenes_are_a_set_without_faults(sfumato: Run, here: Path) -> None:
    assert sfumato("scenes", "render", "world", "--count", 5, "--size", 64).returncode == 0
    done = sfumato("data", "check", "world", "--size", 64, "--json", "--sheet", "sheet.png")
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (report["pictures"], report["buckets"], report["problems"]) == (5, [[64, 64, 5]], [])
    assert (here / "sheet.png").is_file()


def test_where_a_sheet_is_made_its_path_alone_is_on_stdout(sfumato: Run, here: Path) -> None:
    assert sfumato("scenes", "render", "world", "--count", 2, "--size", 64).returncode == 0
    done = sfumato("data", "check", "world", "--size", 64, "--sheet", "sheet.png")
    assert (done.returncode, done.stdout) == (0, "sheet.png\n")
    assert "captions" in done.stderr
    plain = sfumato("data", "check", "world", "--size", 64)
    assert (plain.stderr, "captions" in plain.stdout) == ("", True)


def test_wrong_input_is_one_paragraph(sfumato: Run, here: Path) -> None:
    assert sfumato("data", "--help").returncode == 0
    wrong = sfumato("data", "check", "none", "--size", 100)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "100 is not a multiple of 8" in wrong.stderr
    missing = sfumato("data", "check", "none")
    assert (missing.returncode, missing.stdout, missing.stderr.count("\n")) == (1, "", 1)
    assert missing.stderr.startswith("sfumato: There are no pictures at 'none'")
