"""Weights into memory: where they lie, and that no number changes but by rounding."""

import torch

from sfumato.weights.arena import reserve
from sfumato.weights.build import convert

CPU = torch.device("cpu")


def test_reserved_tensors_are_apart_and_laid_out_for_convolutions() -> None:
    wanted = [
        (torch.Size([3, 5, 3, 3]), torch.float32),
        (torch.Size([0, 4]), torch.float16),
        (torch.Size([7]), torch.bfloat16),
        (torch.Size([2, 3]), torch.float32),
        (torch.Size([]), torch.int64),
    ]
    tensors = list(reserve(wanted, CPU))
    assert [(tensor.shape, tensor.dtype) for tensor in tensors] == wanted
    assert tensors[0].is_contiguous(memory_format=torch.channels_last)
    for number, tensor in enumerate(tensors):
        tensor.fill_(number + 1)
    assert [set(tensor.flatten().tolist()) for tensor in tensors] == [{1.0}, set(), {3.0}, {4.0}, {5}]
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)


def test_reserved_memory_outlives_its_neighbours() -> None:
    _, kept = reserve([(torch.Size([1000]), torch.float32)] * 2, CPU)
    kept.fill_(2.0)
    assert kept.sum().item() == 2000


def test_every_float16_becomes_the_bfloat16_nearest_to_it() -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    every = every[every.isfinite()]  # 63,488 numbers
    for value in (every.view(-1, 8), every.view(16, -1, 2, 2)):
        placed = next(iter(reserve([(value.shape, torch.bfloat16)], CPU)))
        convert(value, placed)
        exact = value.double()
        error = (placed.double() - exact).abs()
        for direction in (-1, 1):  # one bit up or down, never nearer
            neighbour = (placed.contiguous().view(torch.int16) + direction).view(torch.bfloat16).double()
            assert not ((neighbour - exact).abs() < error)[placed != 0].any()
