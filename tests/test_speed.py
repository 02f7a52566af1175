"""What is counted and timed beside the machine's limit."""

import pytest
import torch
from torch import nn

from sfumato.speed import Speed, Timing, product_rate, timed


def test_operations_are_two_for_each_multiply_and_add_of_products_and_convolutions() -> None:
    linear, convolution = nn.Linear(24, 16), nn.Conv2d(3, 8, 3, padding=1)
    x, picture = torch.zeros(5, 24), torch.zeros(2, 3, 10, 12)
    with torch.no_grad():
        assert timed("linear", lambda: linear(x), torch.device("cpu"), 1).operations == 2 * 5 * 24 * 16
        counted = timed("convolution", lambda: convolution(picture), torch.device("cpu"), 1).operations
    assert counted == 2 * (2 * 8 * 10 * 12) * (3 * 3 * 3)


def test_a_picture_is_its_text_its_steps_and_its_decoding() -> None:
    parts = (Timing("text", 0.5, 10), Timing("step", 0.25, 10), Timing("decode", 2.0, 10))
    assert Speed(64, 64, 1e9, parts).picture(steps=8) == pytest.approx(0.5 + 8 * 0.25 + 2.0)
    assert parts[1].rate == pytest.approx(40.0)


def test_the_limit_is_a_rate_of_operations() -> None:
    assert product_rate(torch.device("cpu"), torch.float32) > 1e8  # any machine that runs PyTorch is beyond this
