"""How the C library hands out memory; the one setting that large tensors on a CPU want changed."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # glibc, malloc.h
KEPT = 2**31 - 1  # bytes of free memory at the top of the heap that stay ours; the largest that mallopt takes
STEP = 64 << 20  # bytes that the heap grows by at least
HUGE = 96 << 20  # bytes from which on a block is not kept: few are so large, and in a heap they leave large holes


def keep_freed_memory() -> bool:
    """Lets this process reuse the memory of freed tensors instead of returning it; whether that could be set.

    By default glibc maps every large block afresh and gives it back at once, so each new tensor pays for page faults.
    For whole processes only (the command line, a training run): a library leaves its host's allocator alone.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(
        mallopt(option, value) == 1
        for option, value in ((M_MMAP_THRESHOLD, HUGE), (M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, STEP))
    )
