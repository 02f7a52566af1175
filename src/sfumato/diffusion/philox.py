"""CUDA's normal random numbers, computed with numpy.

PyTorch on a CUDA device gives thread i of a launch the Philox 4x32-10 counter (call number, i) under the seed as
key, and turns the first two of its four words into a normal number by Box and Muller. That holds for tensors with
no more elements than the device starts threads (40,000 on a small card; a 512x512 latent has 16,384): beyond that
a real card's order depends on its size, and this emulation, like A1111's, goes on with one number a thread.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))  # Salmon et al. 2011, table 2
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1, Salmon et al. 2011
ROUNDS = 10
UNIT = 2.0**-32  # cuRAND's scale from a word to (0, 1]
TURN = float(np.float32(2.0**-32 * 2.0 * math.pi))  # the same to an angle; a float32 constant in cuRAND


class Philox:
    """The stream of one CUDA generator: each call of `normal` is one call of torch.randn there."""

    def __init__(self, seed: int) -> None:
        self._key = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
        self._calls = 0

    def normal(self, shape: Sequence[int]) -> npt.NDArray[np.float32]:
        """The next standard normal numbers of the stream, float32."""
        count = math.prod(shape)
        counter = (
            np.full(count, self._calls, dtype=np.uint32),
            np.zeros(count, dtype=np.uint32),
            np.arange(count, dtype=np.uint32),
            np.zeros(count, dtype=np.uint32),
        )
        self._calls += 1
        first, second, _, _ = philox_4x32(counter, self._key)
        return box_muller(first, second).reshape(tuple(shape))


def philox_4x32(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Four random words for each counter; Salmon et al. 2011, section 3.3."""
    a, b, c, d = counter
    low_key, high_key = key
    for _ in range(ROUNDS):
        left = a.astype(np.uint64) * MULTIPLIERS[0]
        right = c.astype(np.uint64) * MULTIPLIERS[1]
        a = _high(right) ^ b ^ np.uint32(low_key)
        b = _low(right)
        c = _high(left) ^ d ^ np.uint32(high_key)
        d = _low(left)
        low_key = (low_key + KEY_STEPS[0]) & 0xFFFFFFFF
        high_key = (high_key + KEY_STEPS[1]) & 0xFFFFFFFF
    return a, b, c, d


def box_muller(first: Words, second: Words) -> npt.NDArray[np.float32]:
    """One standard normal number from two words: cuRAND's formula, in float64 and then rounded, as A1111 does."""
    uniform = first.astype(np.float64) * UNIT + UNIT / 2
    angle = second.astype(np.float64) * TURN + TURN / 2
    normal: npt.NDArray[np.float32] = (np.sqrt(-2.0 * np.log(uniform)) * np.sin(angle)).astype(np.float32)
    return normal


def _high(product: npt.NDArray[np.uint64]) -> Words:
    return (product >> np.uint64(32)).astype(np.uint32)


def _low(product: npt.NDArray[np.uint64]) -> Words:
    return (product & np.uint64(0xFFFFFFFF)).astype(np.uint32)
