"""The clock of the measurements: that of the wall, or, on a machine that is shared, the processor's own.

BENCH_CLOCK=cpu counts what the threads of a process have worked. It is for one thread alone: one that waits for others
works, too.
"""

import os
import time

ON_CPU = os.environ.get("BENCH_CLOCK") == "cpu"
clock = time.process_time if ON_CPU else time.perf_counter


def since_start() -> float:
    """Seconds since this process was started: by the parent's note in BENCH_BEGAN, or worked since then."""
    if ON_CPU:
        return time.process_time()
    return time.clock_gettime(time.CLOCK_MONOTONIC) - float(os.environ["BENCH_BEGAN"])
