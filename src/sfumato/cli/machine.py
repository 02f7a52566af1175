"""doctor: what is installed, what would be used, and what is missing."""

import os
import platform
import sys
from typing import Any

import typer

from sfumato.cli.options import Machine, Voice, grouped
from sfumato.cli.output import write_document, write_line

app = typer.Typer()

NEEDED = ("torch", "numpy", "pillow", "safetensors", "tokenizers", "typer", "rich", "platformdirs")
SERVING = ("fastapi", "uvicorn", "python-multipart", "prometheus-client", "httpx2")


@app.command("doctor")
@grouped
def doctor(machine: Machine, voice: Voice) -> None:
    """Tell what is installed and what is missing.

    And which device and precision would be used.
    """
    facts, missing = examine(machine)
    if voice.json:
        write_document({**facts, "missing": missing})
    else:
        for name, value in facts.items():
            write_line(f"{name}: {value}")
        for line in missing or ["nothing"]:
            write_line(f"missing: {line}")
    if missing:
        raise typer.Exit(1)


def examine(machine: Machine) -> tuple[dict[str, Any], list[str]]:
    """What there is by name, and what is missing, each with what can be done about it."""
    from importlib import metadata, resources, util

    import sfumato
    from sfumato.devices import choose_device, choose_dtype
    from sfumato.errors import ModelNotFoundError
    from sfumato.weights.load import embedded
    from sfumato.weights.locate import aliases, home, hub_cache

    missing = []
    device = choose_device(machine.device)
    dtype = choose_dtype(machine.dtype, device)
    try:
        model: str | None = str(embedded())
    except ModelNotFoundError as error:
        model = None
        missing.append(f"the embedded model: {error}")
    if not (resources.files("sfumato") / "embedded" / "reader.safetensors").is_file():
        missing.append("the reader of the drawn world, which `sfumato evaluate` needs: install the package anew")
    facts = {
        "sfumato": sfumato.__version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "packages": ", ".join(f"{name} {metadata.version(name)}" for name in (*NEEDED, *SERVING)),
        "device": str(device),
        "precision": "that of the model's files" if dtype is None else str(dtype).removeprefix("torch."),
        "embedded model": model,
        "names": f"{len(aliases())} in {home() / 'models.json'}",
        "Hugging Face cache": f"{hub_cache()}{'' if hub_cache().is_dir() else ' (not there)'}",
        "downloads": "huggingface-hub is installed" if util.find_spec("huggingface_hub") else "never",
    }
    return facts, missing
