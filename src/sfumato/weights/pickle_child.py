"""The process that reads a stranger's pickle: `python -m sfumato.weights.pickle_child SOURCE TARGET`.

It has little memory and time, starts nothing, and ends with one line of JSON: {} or {"error": ..., "unsafe": name}. Our
reader runs nothing that a file names; the limits are for a file that finds a fault in the reader.
"""

import json
import os
import sys
from pathlib import Path

from sfumato.confined import give_up
from sfumato.errors import ModelFileError, UnsafeCheckpointError
from sfumato.weights.pickle_convert import convert

MEMORY = 512 * 2**20  # bytes beyond what the interpreter has, without the mapped file
SLOWEST = 20_000_000  # bytes a second, of a slow disk
GRACE = 30  # seconds beyond that
LARGER = 128 * 2**20  # bytes by which what is made may be larger than twice the original
FILES = 16


def main() -> None:
    """Convert the file that the arguments name, and say how it went."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    said: dict[str, str] = {}
    try:
        size = os.stat(source).st_size
        give_up(memory=MEMORY + size, seconds=GRACE + size // SLOWEST, written=2 * size + LARGER, files=FILES)
        with target.open("wb") as out:
            convert(source, out)
    except UnsafeCheckpointError as error:
        said = {"error": str(error), "unsafe": error.name}
    except (ModelFileError, OSError) as error:
        said = {"error": str(error)}
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
