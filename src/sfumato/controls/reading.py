"""The pictures that steer a request, read from where it names them."""

from dataclasses import dataclass, replace

from PIL import Image

from sfumato.controls.pictures import control_picture
from sfumato.controls.steering import Steering
from sfumato.errors import RequestError
from sfumato.images import Pictures, named_picture, open_picture, pad_to_multiple, to_rgb
from sfumato.metadata import pixels_digest
from sfumato.model import Model
from sfumato.nn.controlnet import ControlNet
from sfumato.request import Control, Request


@dataclass(frozen=True)
class ReadControls:
    """The controls of a request with the digests of their pictures in place of paths, and these pictures (RGB).

    None stands for the start picture.
    """

    controls: tuple[Control, ...]
    pictures: tuple[Image.Image | None, ...]

    @property
    def inputs(self) -> dict[str, str]:
        """Place in the request -> digest, of the pictures that the controls name themselves."""
        named = ((place, control.image) for place, control in enumerate(self.controls))
        return {f"control {place}": digest for place, digest in named if digest is not None}

    def within(self, size: tuple[int, int], box: tuple[int, int, int, int]) -> "ReadControls":
        """The same with pictures of `size` cut to a box: those that lie over a start picture that is cut to it."""
        cut = tuple(each.crop(box) if each is not None and each.size == size else each for each in self.pictures)
        return replace(self, pictures=cut)


NO_CONTROLS = ReadControls((), ())


def read_controls(request: Request, pictures: Pictures, *, start: bool) -> ReadControls:
    """Read the pictures of a request's controls; `start`: is there a start picture, for those that name none?

    Raises RequestError for a picture that is neither named nor handed over, PictureError for one that cannot be read.
    """
    read: list[tuple[Control, Image.Image | None]] = []
    for control in request.controls:
        if control.image is not None:
            picture = to_rgb(open_picture(named_picture(control.image, "controls", pictures)))
            read.append((replace(control, image=f"sha256:{pixels_digest(picture)}"), picture))
        elif start:
            read.append((control, None))
        else:
            raise RequestError(f"controls has {control.model} without an image; give one, or a start image", "controls")
    return ReadControls(tuple(control for control, _ in read), tuple(picture for _, picture in read))


def steerings(
    model: Model, read: ReadControls, size: tuple[int, int], *, start: Image.Image | None, mask: Image.Image | None
) -> tuple[Steering, ...]:
    """The controls with their networks and what these see, for pictures of `size` (width, height) in pixels.

    `start` and `mask` are the start picture and its mask, of that size. Raises RequestError for what does not fit.
    """
    made = []
    for control, own in zip(read.controls, read.pictures, strict=True):
        picture = own or start
        assert picture is not None, "read_controls refuses a control without either"
        network = model.controls[control.model]
        if control.mode == "guess" and not isinstance(network, ControlNet):
            raise RequestError(
                f"controls has mode 'guess' for {control.model}, a T2I-Adapter; it is for ControlNets alone", "controls"
            )
        seen = pad_to_multiple(control_picture(control, picture, size, mask), model.stride)
        made.append(Steering(control, network, seen))
    return tuple(made)


def control_names(request: Request) -> list[str]:
    """The control networks that a request names, each once."""
    return list(dict.fromkeys(control.model for control in request.controls))


def check_controls_there(request: Request, model: Model) -> None:
    """Raise RequestError if the model has not been loaded with a control network that the request names."""
    missing = [name for name in control_names(request) if name not in model.controls]
    if missing:
        raise RequestError(
            f"controls names {missing[0]} but the model has {', '.join(model.controls) or 'no control network'}; load "
            "the model with it, or give the request to an Engine",
            "controls",
        )
