"""Configurations that name classes, modules and files: nothing is imported or opened because they say so."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Pipelines = Callable[[str], tuple[Any, Path]]
SOURCE = Path(__file__).parents[2] / "src"
WATCHED = """
import json, sys
import sfumato
from sfumato.errors import SfumatoError
good, single, *bad = sys.argv[1:]
sfumato.load(good); sfumato.load(single, prediction="v")
seen = []
sys.addaudithook(lambda event, args: seen.append((event, repr(args)[:300])))
answers = {}
for path in (single, *bad):
    del seen[:]
    try:
        sfumato.load(path)
        said = "loaded"
    except SfumatoError as error:
        said = str(error)
    events = [pair for pair in seen if pair[0] in ("import", "exec", "compile", "os.system", "subprocess.Popen")]
    answers[path] = (said, events + [pair for pair in seen if pair[0] == "open" and "canary" in pair[1]])
sys.stdout.write(json.dumps(answers))
"""
EVIL: dict[str, dict[str, Any]] = {
    "model_index.json": {
        "_class_name": ["canary", "Pipeline"],
        "custom_pipeline": "../canary",
        "auto_map": {"a": "canary.A"},
    },
    "unet/config.json": {"_class_name": "canary.Net", "auto_map": {"AutoModel": "canary.Net"}},
    "text_encoder/config.json": {"_attn_implementation_internal": "org/canary", "architectures": ["canary"]},
    "scheduler/scheduler_config.json": {"_class_name": "canary.Scheduler", "target": "subprocess.Popen"},
    "vae/config.json": {"_class_name": {"$import": "canary"}, "target": "canary"},
}


def test_no_class_or_module_that_a_configuration_names_is_imported(pipelines: Pipelines, tmp_path: Path) -> None:
    from sfumato.weights.load import load
    from sfumato.weights.save import save_file

    _, folder = pipelines("sd1")
    single = save_file(load(folder), tmp_path / "one.safetensors")
    single.with_suffix(".yaml").write_text(
        "model:\n  target: subprocess.Popen\n  params:\n    args: [touch, canary]\n    parameterization: v\n"
        "x: !!python/object/apply:os.system ['touch canary']\n"
    )
    bad = []
    for number, (file, change) in enumerate(EVIL.items()):
        copy = tmp_path / f"bad{number}"
        for path in folder.rglob("*"):
            target = copy / path.relative_to(folder)
            if path.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, target)
        stated = json.loads((copy / file).read_text())
        (copy / file).unlink()
        (copy / file).write_text(json.dumps({**stated, **change}))
        (copy / "canary.py").write_text("raise SystemExit('imported')")
        bad.append(copy)
    (tmp_path / "canary.py").write_text("raise SystemExit('imported')")
    command = [sys.executable, "-c", WATCHED, str(folder), str(single), *map(str, bad)]
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{tmp_path}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for path, (said, events) in json.loads(done.stdout).items():
        assert events == [], (path, said, events)
    assert not (tmp_path / "canary").exists()
