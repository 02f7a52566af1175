"""The models that can be named on this machine. Nothing here imports torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sfumato.errors import ModelNotFoundError
from sfumato.weights.locate import aliases, embedded, hub_cache


@dataclass(frozen=True)
class Known:
    """A model with a name: the embedded one, an alias, or one in the local Hugging Face cache."""

    name: str
    kind: Literal["embedded", "alias", "cache"]
    place: str


def known_models() -> Iterator[Known]:
    """Give every model that can be named. Raises ModelFileError if the file of aliases is damaged."""
    try:
        inside: Path = embedded()
        yield Known(inside.name, "embedded", str(inside))
    except ModelNotFoundError:
        pass
    for name, place in aliases().items():
        yield Known(name, "alias", place)
    for index in sorted(hub_cache().glob("models--*/snapshots/*/model_index.json")):
        repository = index.parents[2].name.removeprefix("models--").replace("--", "/", 1)
        yield Known(f"{repository}@{index.parent.name[:12]}", "cache", str(index.parent))
