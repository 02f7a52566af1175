"""The device that these tests are for, with whole float32 digits."""

import os
from collections.abc import Callable, Iterator

import pytest
import torch

# before CUDA's libraries start: what PyTorch asks for where a run must repeat itself bit for bit
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(scope="session")
def device() -> torch.device:
    """CUDA, or what SFUMATO_TEST_DEVICE says."""
    return torch.device(os.environ.get("SFUMATO_TEST_DEVICE", "cuda"))


@pytest.fixture(scope="session", autouse=True)
def whole_digits() -> Iterator[None]:
    """Without TensorFloat-32, which takes 13 of float32's 23 digits away and is on by default for convolutions."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on two threads where other work waits for the same cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def normal() -> Callable[..., torch.Tensor]:
    """Standard normal tensors on the CPU, from one seeded stream for each test."""
    generator = torch.Generator().manual_seed(1234)
    return lambda *shape: torch.randn(shape, generator=generator)
