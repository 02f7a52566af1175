"""What a request asks of the memory: the size of its start picture, and of the files that are read for it."""

from sfumato.images import Pictures, PictureSource, named_picture, open_picture
from sfumato.request import Request
from sfumato.weights.opened import Opened


def size_of(opened: Opened) -> int:
    """The bytes of an opened model's files."""
    files = {path for component in opened.components.values() for path in component.tensors.paths}
    return sum(path.stat().st_size for path in files)


def picture_size(request: Request, image: PictureSource | None, pictures: Pictures) -> tuple[int, int] | None:
    """The width and height of the start picture, handed over or named; None without. Errors are those of `run`."""
    if image is None and request.image is None:
        return None
    return open_picture(named_picture(request.image, "image", pictures) if image is None else image).size
