"""The public names: all there, and free until they are used."""

import subprocess
import sys

import pytest

import sfumato

IMPORT_SECONDS = 0.05  # the contract's


def import_seconds() -> float:
    """How much of a processor's time `import sfumato` takes in a new interpreter, whatever else the machine does."""
    code = "import time; start = time.process_time(); import sfumato; print(time.process_time() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_importing_the_package_takes_at_most_50_ms() -> None:
    assert min(import_seconds() for _ in range(3)) <= IMPORT_SECONDS  # the least: caches are shared with other work


def test_every_public_name_is_there() -> None:
    for name in sfumato.__all__:
        assert getattr(sfumato, name) is not None
    assert callable(sfumato.generate)
    assert callable(sfumato.samplers.dpmpp_2m)
    assert set(sfumato.__all__) <= set(dir(sfumato))
    with pytest.raises(AttributeError, match="nonsense"):
        sfumato.nonsense  # noqa: B018
