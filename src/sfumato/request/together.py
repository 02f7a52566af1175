"""What the fields of a request need of one another, beyond what each may be: known before any model is."""

from dataclasses import replace

from sfumato.errors import RequestError
from sfumato.request.pictures import SIDE_RANGE
from sfumato.request.request import Request

GREY = ("differential", "soft_inpainting")
"""The fields that say what grey in a mask is."""


def check_together(request: Request, *, image: bool, mask: bool) -> None:
    """Raise RequestError for a field that needs another one, or excludes it.

    `image` and `mask`: whether there is a start picture and a mask, named by the request or handed over beside it.
    """
    _check_start(request, image=image, mask=mask)
    _check_masked(request, mask=mask)
    _check_controls(request, image=image, mask=mask)
    _check_windows(request)


def _check_start(request: Request, *, image: bool, mask: bool) -> None:
    fields = {name: getattr(request, name) is not None for name in ("strength", "strength_rule", "resize_mode")}
    for name, given in {**fields, "mask": mask, "outpaint": request.outpaint is not None}.items():
        if given and not image:
            raise RequestError(f"{name} is given but no image; give a start image", name)
    if request.outpaint is not None and (mask or request.resize_mode is not None):
        raise RequestError("outpaint makes its own mask and size; leave out the mask and resize_mode", "outpaint")
    if request.hires is not None and (mask or request.outpaint is not None):
        raise RequestError("hires is given with a mask; enlarge the picture before or after it is repainted", "hires")
    if mask and request.resize_mode == "latent":
        raise RequestError(
            "resize_mode is 'latent' with a mask, whose pixels are not those of a latent that was scaled; choose "
            "another one",
            "resize_mode",
        )


def _check_masked(request: Request, *, mask: bool) -> None:
    for name in ("mask_blur", "mask_invert", "masked_only", "padding", "masked_content", "masking", *GREY):
        value = getattr(request, name)
        masked = mask or (request.outpaint is not None and name in ("masked_only", "padding", "masking"))
        if value not in (None, False) and not masked:
            raise RequestError(f"{name} is {value!r} but there is no mask; give a mask", name)
    if request.padding is not None and not request.masked_only:
        raise RequestError(
            f"padding is {request.padding} but masked_only is off; padding is around what it cuts out", "padding"
        )
    if request.regions and request.masked_only:
        raise RequestError(
            "regions are given with masked_only, which cuts a part out; leave out one of them", "regions"
        )
    if request.masked_only and request.resize_mode is not None:
        raise RequestError(
            f"resize_mode is {request.resize_mode!r} with masked_only, which keeps the picture's size; "
            "leave out one of them",
            "resize_mode",
        )


def _check_controls(request: Request, *, image: bool, mask: bool) -> None:
    for control in request.controls:
        if control.image is None and not image:
            raise RequestError(f"controls has {control.model} without an image; give one, or a start image", "controls")
        if control.preprocessor == "inpaint" and not mask and request.outpaint is None:
            raise RequestError("controls has preprocessor 'inpaint', which needs a mask; give a mask", "controls")


def _check_windows(request: Request) -> None:
    if request.windows is None:
        return
    for what, given in (
        ("controls, which see places of the whole picture", bool(request.controls or request.image_prompts)),
        ("regions, which are places of the whole picture", bool(request.regions)),
        ("apg.momentum, which is of the whole picture", request.apg is not None and request.apg.momentum != 0),
    ):
        if given:
            raise RequestError(f"windows cannot be used with {what}; leave out one of them", "windows")


def second_request(request: Request, *, takes_eta: bool) -> Request:
    """The request of the second pass of one that is resolved and has one. Raises RequestError for too large a size.

    `takes_eta`: whether the sampler of that pass has fresh noise; of one of its own that has none, `eta` says nothing.
    """
    hires = request.hires
    assert hires is not None and request.width is not None and request.height is not None
    width, height = hires.size_for(request.width, request.height)
    if max(width, height) > SIDE_RANGE[1]:
        raise RequestError(f"hires would be {width}x{height}; a side has at most {SIDE_RANGE[1]} pixels", "hires")
    return replace(
        request,
        hires=None,
        prompt=request.prompt if hires.prompt is None else (hires.prompt,) * len(request.prompts),
        negative_prompt=request.negative_prompt if hires.negative_prompt is None else hires.negative_prompt,
        steps=hires.steps or request.steps,
        guidance=request.guidance if hires.guidance is None else hires.guidance,
        sampler=hires.sampler or request.sampler,
        spacing=hires.spacing or (None if hires.sampler else request.spacing),
        eta=None if hires.sampler and not takes_eta else request.eta,
        strength=hires.strength,
        strength_rule=hires.strength_rule,
        width=width,
        height=height,
    )
