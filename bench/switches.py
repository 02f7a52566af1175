"""What is left in memory when models of full size take turns: `python -m bench.switches [--count N]`.

One engine that keeps one model draws with three in turn, of the published sizes and blank (`bench.blank`), and tells
what the process has after each, in MiB.
"""

import argparse
import gc
import tempfile
from pathlib import Path

MODELS = ("sd15", "sd2", "sd15-inpaint")
SIDE = 64


def main() -> None:
    """Draw, and print a line for each picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=12)
    chosen = parser.parse_args()
    from sfumato.allocator import keep_freed_memory

    keep_freed_memory()  # as the command line does
    from PIL import Image

    from bench import blank
    from sfumato.engine import Engine
    from sfumato.memory.sizes import resident
    from sfumato.request import Request

    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            blank.model(Path(folder) / name, name)
        engine = Engine("cpu")
        for turn in range(chosen.count):
            name = MODELS[turn % len(MODELS)]
            image = Image.new("RGB", (SIDE, SIDE)) if "inpaint" in name else None
            request = Request(
                prompt="a red house", model=str(Path(folder) / name), steps=1, guidance=1, width=SIDE, height=SIDE
            )
            list(engine.run(request, image=image, metadata=False))
            gc.collect()
            print(f"{resident() / 2**20:.0f} MiB  {name}", flush=True)


if __name__ == "__main__":
    main()
