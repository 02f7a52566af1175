"""`python -m bench.autoencoder 1024`: an SD autoencoder's decoding whole, in blended tiles and in bands.

Prints the processor time, the peak of memory over that of the weights, and the relative error against decoding whole.
Each way runs in a process of its own, whose peak is its own. `--ways banded` alone is for sizes that do not fit whole.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig, decode_tiled
from sfumato.nn.banded import decode_banded

WAYS = {"whole": Autoencoder.decode, "tiled": decode_tiled, "banded": decode_banded}


def peak() -> float:
    """The most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def one(way: str, size: int, path: Path) -> None:
    """Decode a random latent in one way, and leave the pixels in a file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        autoencoder = Autoencoder(AutoencoderConfig()).eval()
    latent = torch.randn(1, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(1))
    before, started = peak(), time.process_time()
    pixels = WAYS[way](autoencoder, latent)
    print(f"{size}x{size} {way}: {time.process_time() - started:.0f} s, {peak() - before:.0f} MiB", flush=True)
    torch.save(pixels, path)


def main() -> None:
    """Run each way, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", type=int, help="pixels of the picture's side")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.into is not None:
        one(given.ways[0], given.size, given.into)
        return
    with TemporaryDirectory() as folder:
        files = {way: Path(folder) / way for way in given.ways}
        for way, path in files.items():
            command = [sys.executable, "-m", "bench.autoencoder", str(given.size), "--ways", way, "--into", str(path)]
            subprocess.run(command, check=True)
        if "whole" in files:
            whole = torch.load(files["whole"])
            for way in (way for way in files if way != "whole"):
                error = (torch.load(files[way]) - whole).norm() / whole.norm()
                print(f"{way}: relative error {error:.1e}")


if __name__ == "__main__":
    main()
