"""What has to be so before diffusers is imported."""

import sys


def hide_torchvision() -> None:
    """Leave torchvision out, as in an installation of diffusers and transformers alone: both start faster without.

    It is here only as a dependency of a test's oracle, and not always in a build that fits the installed PyTorch.
    """
    sys.modules["torchvision"] = None  # type: ignore[assignment]
