"""batch as a process: what is made, what is kept, what is made again, and what fails."""

import json
from pathlib import Path

from cli_run import Run
from PIL import Image

from sfumato.metadata import read_texts, save

TABLE = "prompt,seed,count\na house,1,2\na tree,,\na boat,3,\n"


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_table_is_drawn_once_and_only_what_is_missing_or_changed_again(sfumato: Run, model: Path, here: Path) -> None:
    (here / "table.csv").write_text(TABLE)
    words = ("batch", "table.csv", "-m", model, "-o", "out", "--json")
    done = sfumato(*words)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["made"], report["kept"], report["failed"]) == (3, 0, 0)
    paths = [[here / path for path in row["pictures"]] for row in report["rows"]]
    assert [len(each) for each in paths] == [2, 1, 1]
    before = times(here / "out")
    assert len(before) == 4

    again = json.loads(sfumato(*words).stdout)
    assert (again["made"], again["kept"]) == (0, 3)
    assert times(here / "out") == before

    paths[0][1].unlink()  # one picture of a row is gone
    with Image.open(paths[2][0]) as opened:  # another has other pixels under its old metadata
        edited, texts = opened.convert("RGB"), read_texts(opened)
    edited.putpixel((0, 0), (1, 2, 3))
    edited.info.update(texts)
    save(edited, paths[2][0], overwrite=True)
    done = sfumato(*words)
    last = json.loads(done.stdout)
    assert [row["status"] for row in last["rows"]] == ["made", "kept", "made"]
    assert "other pixels" in done.stderr
    assert all(path.exists() for row in paths for path in row)


def test_rows_that_fail_are_told_at_the_end_and_do_not_stop_the_others(sfumato: Run, model: Path, here: Path) -> None:
    rows = [
        {"prompt": "a house", "steps": 0},
        {"prompt": "a tree", "image": "missing.png"},
        {"prompt": "a boat", "model": "nowhere/nothing.safetensors"},
        {"prompt": "a moon", "seed": 5},
    ]
    (here / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = sfumato("batch", "table.jsonl", "-m", model, "-o", "out")
    assert done.returncode == 1
    (path,) = done.stdout.splitlines()
    assert (here / path).exists()
    said = done.stderr.splitlines()
    assert said[-4].startswith("1 rows made, 0 kept, 3 failed")
    assert [line.partition(":")[0] for line in said[-3:]] == ["row 1", "row 2", "row 3"]
    assert "missing.png" in said[-2]
    quiet = sfumato("batch", "table.jsonl", "-m", model, "-o", "out", "-q")
    assert quiet.stderr.splitlines() == said[-3:]  # errors are told


def test_a_start_picture_that_changed_makes_a_row_again(sfumato: Run, model: Path, here: Path, photo: Path) -> None:
    with Image.open(photo) as opened:
        opened.convert("RGB").save(here / "start.png")
    (here / "table.jsonl").write_text(
        json.dumps({"prompt": "a tree", "image": "start.png", "strength": 0.5, "seed": 1})
    )
    words = ("batch", "table.jsonl", "-m", model, "-o", "out", "--json")
    assert json.loads(sfumato(*words).stdout)["made"] == 1
    assert json.loads(sfumato(*words).stdout)["kept"] == 1
    with Image.open(here / "start.png") as opened:
        opened.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(here / "start.png")
    done = sfumato(*words)
    assert json.loads(done.stdout)["made"] == 1
    assert "another image" in done.stderr


def test_a_file_that_is_no_table_is_a_failure(sfumato: Run, here: Path) -> None:
    (here / "table.csv").write_text("prompt,stepps\na,1\n")
    done = sfumato("batch", "table.csv")
    assert done.returncode == 1
    assert "stepps" in done.stderr
