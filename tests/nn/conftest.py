"""What the tests of networks share."""

from collections.abc import Callable, Iterator

import pytest
import torch


@pytest.fixture
def normal() -> Callable[..., torch.Tensor]:
    """Standard normal tensors, from one seeded stream for each test."""
    generator = torch.Generator().manual_seed(1234)
    return lambda *shape: torch.randn(shape, generator=generator)


@pytest.fixture(autouse=True)
def one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small networks gain nothing from more threads, and lose much where other programs share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if request.node.get_closest_marker("slow") else 1)
    yield
    torch.set_num_threads(before)
