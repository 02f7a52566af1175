"""Strangers' pickles: every malicious one is refused by name, and nothing of it runs, is imported or is opened."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from weights_pickles import saved, unsafe_files, write_all, wrong_files

from sfumato.errors import ModelFileError, UnsafeCheckpointError
from sfumato.weights.files import open_file

SOURCE = Path(__file__).parents[2] / "src"
# Reads every file with our interpreter, in this process, while Python tells everything that it does.
WATCHED = """
import json, sys
from pathlib import Path
from sfumato.errors import ModelFileError, UnsafeCheckpointError
from sfumato.weights.pickle_convert import convert
good, listed = sys.argv[1:]
files = json.loads(Path(listed).read_text())
out = Path("/dev/null").open("wb")
for _ in range(2):
    convert(Path(good), out)
seen, answers = [], {}
QUIET = ("object.", "sys._getframe")
sys.addaudithook(lambda event, args: None if event.startswith(QUIET) else seen.append((event, repr(args)[:200])))
for name, path in files.items():
    del seen[:]
    try:
        convert(Path(path), out)
        kind, said = "read", ""
    except UnsafeCheckpointError as error:
        kind, said = "unsafe", error.name
    except ModelFileError as error:
        kind, said = "wrong", str(error)
    except BaseException as error:
        kind, said = "crash", repr(error)
    mine = [pair for pair in seen if not (pair[0] == "open" and path in pair[1] and "'r'" in pair[1])]
    answers[name] = (kind, said, [pair for pair in mine if pair[0] not in ("mmap.__new__",)])
sys.stdout.write(json.dumps(answers))
"""


def watched(folder: Path, files: dict[str, tuple[Path, str]]) -> dict[str, tuple[str, str, list[str]]]:
    """What reading each file gave (read, unsafe, wrong), what it said, and every audit event meanwhile."""
    (folder / "good").write_bytes(saved())
    (folder / "list.json").write_text(json.dumps({name: str(path) for name, (path, _) in files.items()}))
    command = [sys.executable, "-c", WATCHED, str(folder / "good"), str(folder / "list.json")]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=True)
    return json.loads(done.stdout)


def test_every_malicious_file_is_refused_by_name_and_nothing_happens(tmp_path: Path) -> None:
    files = write_all(tmp_path, unsafe_files())
    assert len(files) >= 80
    for name, (kind, said, events) in watched(tmp_path, files).items():
        assert kind == "unsafe", (name, kind, said)
        assert said == files[name][1].replace(" ", ".") or said == files[name][1], name
        assert events == [], (name, events)
    assert not (tmp_path / "canary").exists()


def test_every_wrong_file_is_refused_and_nothing_happens(tmp_path: Path) -> None:
    files = write_all(tmp_path, wrong_files())
    for name, (kind, said, events) in watched(tmp_path, files).items():
        assert kind == "wrong", (name, kind, said)
        assert events == [], (name, events)


@pytest.mark.parametrize("name", ["os system alone", "INST in a row", "protocol 0 alone", "pickle 4 of the row"])
def test_the_door_tells_the_global_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    path, _ = write_all(tmp_path, unsafe_files())[name]
    with pytest.raises(UnsafeCheckpointError, match=r"os\.system.*Nothing of it was run") as caught:
        open_file(path)
    assert caught.value.name == "os.system"
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["two pickles", "a tensor beyond", "one number repeated", "TorchScript", "a tar"])
def test_the_door_tells_what_is_wrong(tmp_path: Path, name: str) -> None:
    path, says = write_all(tmp_path, wrong_files())[name]
    with pytest.raises(ModelFileError, match=says):
        open_file(path)


@pytest.mark.slow
def test_the_door_refuses_every_file(tmp_path: Path) -> None:
    for path, _ in write_all(tmp_path, unsafe_files()).values():
        with pytest.raises(UnsafeCheckpointError):
            open_file(path)


def test_a_file_that_fills_the_memory_ends_its_own_process_only(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    block = b"X\x00\x00\x10\x00" + b"a" * (1 << 20)
    path.write_bytes(b"\x80\x02" + block + (b"2" + b"}" * 1000) * 1900 + b".")
    with pytest.raises(ModelFileError):
        open_file(path)


def calls(tree: ast.AST) -> set[str]:
    """The dotted names that a file calls or imports."""
    found = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def test_nothing_unpickles_evaluates_or_loads_by_torch() -> None:
    never = {"torch.load", "eval", "exec", "compile", "__import__", "yaml.load", "yaml.full_load", "yaml.unsafe_load"}
    modules = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "pickletools"}
    for path in sorted((SOURCE / "sfumato").rglob("*.py")):
        named = calls(ast.parse(path.read_text(encoding="utf-8")))
        wrong = {name for name in named if name in never or name.split(".")[0] in modules}
        assert not wrong, f"{path} uses {wrong}"
        assert not {name for name in named if name.endswith("allow_pickle")}, path
