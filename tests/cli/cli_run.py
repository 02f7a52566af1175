"""What the tests of the command line share by name."""

import subprocess
from collections.abc import Callable

SIDE = 64  # pixels of the tiny model's pictures; 8 x 8 latent cells

Run = Callable[..., subprocess.CompletedProcess[str]]
"""`run(*words, stdin="")` runs `sfumato` with these words."""
