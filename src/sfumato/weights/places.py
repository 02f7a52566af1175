"""Where files lie on this machine: our own, and the local Hugging Face cache. Nothing here imports torch."""

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """Return the folder of our own files: SFUMATO_HOME, or where the system keeps a user's data."""
    stated = os.environ.get("SFUMATO_HOME")
    return Path(stated).expanduser() if stated else Path(platformdirs.user_data_dir("sfumato"))


def hub_cache() -> Path:
    """Return the folder of the local Hugging Face cache, by that library's own rules."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"
