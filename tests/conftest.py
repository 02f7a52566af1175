"""What every test needs before the reference implementations are imported."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# how fast examples are made depends on who else uses the cores, not on what is tested
settings.register_profile("sfumato", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sfumato")


def declare_torchvision_operators() -> torch.library.Library | None:
    """Make torchvision importable beside a torch of another build, as the reference implementations import it.

    A torchvision wheel for CUDA next to a CPU torch cannot load its compiled operators, and then fails to import
    because two of them have no schema. No test calls them: declaring the schemas is enough.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        return None
    version = Path(found.submodule_search_locations[0], "version.py")
    if torch.version.cuda is not None or not version.exists() or "+cu" not in version.read_text():
        return None
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


TORCHVISION = declare_torchvision_operators()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name what needs a GPU, and skip it, where there is none; SFUMATO_TEST_DEVICE=cpu tries these tests themselves."""
    if torch.cuda.is_available() or "SFUMATO_TEST_DEVICE" in os.environ:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and this machine has none"))
