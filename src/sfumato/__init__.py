"""sfumato: Stable Diffusion as one package that trains it, runs it and proves it.

    model = sfumato.load()                                    # the embedded model; or a name, a folder, a file
    pictures = sfumato.generate(model, sfumato.Request(prompt="a red house on green grass", seed=1))
    sfumato.save(pictures[0], "house.png")                    # with all that is needed to make it again

Importing the package does nothing; each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfumato.client import Client
    from sfumato.diffusion import samplers
    from sfumato.engine import Engine
    from sfumato.errors import SfumatoError
    from sfumato.events import Event, Finished, Loading, Preview, Progress
    from sfumato.generation import generate, stream
    from sfumato.images import grid
    from sfumato.metadata import describe, save
    from sfumato.model import Model
    from sfumato.operations import reconstruct
    from sfumato.request import Control, Embedding, ImagePrompt, Lora, Request
    from sfumato.weights.load import load

__version__ = "0.1.0"

__all__ = [
    "Client",
    "Control",
    "Embedding",
    "Engine",
    "Event",
    "Finished",
    "ImagePrompt",
    "Loading",
    "Lora",
    "Model",
    "Preview",
    "Progress",
    "Request",
    "SfumatoError",
    "describe",
    "generate",
    "grid",
    "load",
    "reconstruct",
    "samplers",
    "save",
    "stream",
]

_HOMES = {
    "Client": "client",
    "Control": "request",
    "Embedding": "request",
    "Engine": "engine",
    "Event": "events",
    "Finished": "events",
    "ImagePrompt": "request",
    "Loading": "events",
    "Lora": "request",
    "Model": "model",
    "Preview": "events",
    "Progress": "events",
    "Request": "request",
    "SfumatoError": "errors",
    "describe": "metadata",
    "generate": "generation",
    "grid": "images",
    "load": "weights.load",
    "reconstruct": "operations",
    "save": "metadata",
    "stream": "generation",
}


def __getattr__(name: str) -> object:
    if name == "samplers":
        return import_module("sfumato.diffusion.samplers")
    if name not in _HOMES:
        raise AttributeError(f"module 'sfumato' has no attribute {name!r}")
    found = getattr(import_module(f"sfumato.{_HOMES[name]}"), name)
    globals()[name] = found  # from here on it is found without this function
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
