"""The pictures that steer a request, read from where it names them."""

from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import nn

from sfumato.controls.pictures import control_picture
from sfumato.controls.steering import Prompting, Steering, masks_of
from sfumato.errors import RequestError
from sfumato.images import (
    Pictures,
    clip_pixels,
    crop_to_fill,
    mask_weights,
    named_picture,
    open_picture,
    pad_to_multiple,
    to_mask,
    to_rgb,
)
from sfumato.metadata import pixels_digest
from sfumato.model import Model
from sfumato.nn.controlnet import ControlNet
from sfumato.nn.controlnet_union import ControlNetUnion
from sfumato.nn.ip_adapter import Prompter
from sfumato.request import TASK_OF, TASKS, Control, ImagePrompt, Request


@dataclass(frozen=True)
class ReadControls:
    """The controls of a request with the digests of their pictures in place of paths, and these pictures (RGB).

    None stands for the start picture.
    """

    controls: tuple[Control, ...] = ()
    pictures: tuple[Image.Image | None, ...] = ()
    prompts: tuple[ImagePrompt, ...] = ()
    prompt_pictures: tuple[tuple[Image.Image, ...], ...] = ()
    prompt_masks: tuple[Image.Image | None, ...] = ()

    @property
    def inputs(self) -> dict[str, str]:
        """Place in the request -> digest, of the pictures that controls and image prompts name."""
        named = ((place, control.image) for place, control in enumerate(self.controls))
        prompts = (
            (f"image prompt {place}.{number}", digest)
            for place, prompt in enumerate(self.prompts)
            for number, digest in enumerate(prompt.images)
        )
        masks = {f"image prompt {place} mask": each.mask for place, each in enumerate(self.prompts) if each.mask}
        return {
            **masks,
            **{f"control {place}": digest for place, digest in named if digest is not None},
            **dict(prompts),
        }

    def within(self, size: tuple[int, int], box: tuple[int, int, int, int]) -> "ReadControls":
        """The same with pictures of `size` cut to a box: those that lie over a start picture that is cut to it."""
        cut = tuple(each.crop(box) if each is not None and each.size == size else each for each in self.pictures)
        return replace(self, pictures=cut)


NO_CONTROLS = ReadControls()


def read_controls(request: Request, pictures: Pictures) -> ReadControls:
    """Read the pictures of a request's controls; those that name none see the start picture.

    Raises RequestError for a picture that is neither named nor handed over, PictureError for one that cannot be read.
    """
    read: list[tuple[Control, Image.Image | None]] = []
    for control in request.controls:
        if control.image is not None:
            picture = to_rgb(open_picture(named_picture(control.image, "controls", pictures)))
            read.append((replace(control, image=f"sha256:{pixels_digest(picture)}"), picture))
        else:
            read.append((control, None))
    prompts, prompt_pictures, masks = [], [], []
    for prompt in request.image_prompts:
        seen = tuple(to_rgb(open_picture(named_picture(name, "image_prompts", pictures))) for name in prompt.images)
        mask, name = None, None
        if prompt.mask is not None:
            mask = to_mask(open_picture(named_picture(prompt.mask, "image_prompts", pictures)))
            name = f"sha256:{pixels_digest(mask)}"
        digests = tuple(f"sha256:{pixels_digest(each)}" for each in seen)
        prompts.append(replace(prompt, images=digests, mask=name))
        prompt_pictures.append(seen)
        masks.append(mask)
    return ReadControls(
        tuple(control for control, _ in read),
        tuple(picture for _, picture in read),
        tuple(prompts),
        tuple(prompt_pictures),
        tuple(masks),
    )


def steerings(
    model: Model, read: ReadControls, size: tuple[int, int], *, start: Image.Image | None, mask: Image.Image | None
) -> tuple[Steering, ...]:
    """The controls with their networks and what these see, for pictures of `size` (width, height) in pixels.

    `start` and `mask` are the start picture and its mask, of that size. Raises RequestError for what does not fit.
    """
    made = []
    for control, own in zip(read.controls, read.pictures, strict=True):
        picture = own or start
        assert picture is not None, "check_together refuses a control without either"
        network = model.controls[control.model]
        seen = pad_to_multiple(control_picture(control, picture, size, mask), model.stride)
        made.append(Steering(control, told_task(control, network), seen))
    return tuple(made)


def told_task(control: Control, network: nn.Module) -> nn.Module:
    """A control's network, told what kind of picture it sees where it knows several.

    Raises RequestError for a mode or a task that this kind of network does not have.
    """
    if control.mode == "guess" and not isinstance(network, ControlNet):
        raise RequestError(
            f"controls has mode 'guess' for {control.model}, a T2I-Adapter; it is for ControlNets alone", "controls"
        )
    if not isinstance(network, ControlNetUnion):
        if control.task is not None:
            raise RequestError(
                f"controls has task {control.task!r} for {control.model}, which is for one kind of pictures; leave it "
                "out",
                "controls",
            )
        return network
    known = TASKS[: network.control.num_control_type]
    task = control.task or TASK_OF.get(control.preprocessor)
    if task not in known:
        given = "no task" if task is None else f"task {task!r}"
        raise RequestError(
            f"controls has {given} for {control.model}, which sees pictures of several kinds; say which of "
            f"{', '.join(known)}",
            "controls",
        )
    return network.for_task(known.index(task))


def promptings(model: Model, read: ReadControls, size: tuple[int, int]) -> tuple[Prompting, ...]:
    """The image prompts with their networks and what these see, for pictures of `size` (width, height) in pixels."""
    made = []
    for prompt, seen, mask in zip(read.prompts, read.prompt_pictures, read.prompt_masks, strict=True):
        network = model.controls[prompt.network]
        assert isinstance(network, Prompter)
        pixels = torch.cat([clip_pixels(each, network.encoder.config.image_size) for each in seen])
        where = None if mask is None else pad_to_multiple(mask_weights(crop_to_fill(mask, *size)), model.stride)
        levels = model.unet.config.levels
        made.append(Prompting(prompt, network, pixels, {} if where is None else masks_of(where, model.stride, levels)))
    return tuple(made)


def network_names(request: Request) -> list[str]:
    """The networks that a request's controls and image prompts name, each once."""
    return list(dict.fromkeys([*control_names(request), *(prompt.network for prompt in request.image_prompts)]))


def control_names(request: Request) -> list[str]:
    """The control networks that a request names, each once."""
    return list(dict.fromkeys(control.model for control in request.controls))


def check_controls_there(request: Request, model: Model) -> None:
    """Raise RequestError if the model has not been loaded with a control network that the request names."""
    missing = [name for name in network_names(request) if name not in model.controls]
    if missing:
        field = "controls" if missing[0] in control_names(request) else "image_prompts"
        raise RequestError(
            f"{field} names {missing[0]} but the model has {', '.join(model.controls) or 'no control network'}; load "
            "the model with it, or give the request to an Engine",
            field,
        )
