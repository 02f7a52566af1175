"""What a request needs in memory, as numbers and in words. Nothing here imports torch."""

from dataclasses import dataclass

from sfumato.memory.shape import Shape
from sfumato.memory.sizes import readable_size


@dataclass(frozen=True)
class Need:
    """The bytes of the whole process that draws, as it is usually run and as it takes least; `saves` says how that is.

    `whole`: every way to run it was counted, so that nothing takes less.
    """

    usual: int
    least: int
    saves: str = ""
    whole: bool = True

    def told(self, shape: Shape, there: int) -> str:
        """Say that a shape does not fit into the bytes that are there, and what is drawn with less."""
        together = f" with {shape.batch} pictures together" if shape.batch > 1 else ""
        return (
            f"{shape.width}x{shape.height}{together} needs {readable_size(self.usual)}, and "
            f"{readable_size(self.least)} with everything that saves memory ({self.saves or 'nothing is left to save'})"
            f"; {readable_size(there)} are there. Draw smaller pictures"
            f"{', or fewer together (batch 1)' if shape.batch > 1 else ''}"
        )
