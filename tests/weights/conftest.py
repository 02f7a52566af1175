"""A home of its own for each test, and tiny random models saved by diffusers."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from weights_pipelines import pipeline


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """One thread: on tensors as small as these, waiting for others takes longer than computing."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty home and cache, so that no test sees or changes what is on this machine."""
    home = tmp_path_factory.mktemp("home")
    names = ("SFUMATO_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    before = {name: os.environ.get(name) for name in names}
    os.environ["SFUMATO_HOME"] = str(home / "sfumato")
    os.environ["HF_HOME"] = str(home / "hf")
    for name in names[2:]:
        os.environ.pop(name, None)
    yield home
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """kind -> (the pipeline of diffusers, the folder that it saved); each made once."""
    made: dict[str, tuple[Any, Path]] = {}

    def of(kind: str) -> tuple[Any, Path]:
        if kind not in made:
            root = tmp_path_factory.mktemp(kind)
            made[kind] = pipeline(kind, root), root / "model"
            made[kind][0].save_pretrained(made[kind][1])
        return made[kind]

    return of
