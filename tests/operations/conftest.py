"""The tiny models, built once for all tests of the operations."""

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from tiny_models import Pair, build

from sfumato.model import Model
from sfumato.weights.load import load


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on two threads, and much slower when other work waits for the same cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """A pair by its kind, built when first asked for."""
    root = tmp_path_factory.mktemp("tiny")

    @cache
    def made(kind: str) -> Pair:
        components = build(kind, root)
        return Pair(components, load(root / kind))

    return made


@pytest.fixture(scope="session")
def tiny(pair: Callable[[str], Pair]) -> Model:
    """The tiny SD 1.x."""
    return pair("sd1").ours
