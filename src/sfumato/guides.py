"""What a request changes in the networks, and what it needs of them: tiling, FreeU, attention, size ids, a refiner."""

from dataclasses import asdict, replace

from sfumato.diffusion.guidance import BLUR_CELLS
from sfumato.errors import RequestError
from sfumato.model import Model
from sfumato.nn.circular import circular
from sfumato.nn.freeu import with_freeu
from sfumato.nn.watched import chosen, self_attentions
from sfumato.request import Request
from sfumato.request.guides import PerturbedAttention, Tiling
from sfumato.text.encode import AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE, SizeIds

GREY = ("differential", "soft_inpainting")
"""The fields that say what grey in a mask is."""

BLENDED = (*GREY, "windows", "refiner")
"""The fields for which what is masked is blended: a network that sees the mask cannot do it, or not alone."""

IDS = {
    **dict.fromkeys(("original_size", "crop", "negative_original_size", "negative_crop"), frozenset({5, 6})),
    **dict.fromkeys(("target_size", "negative_target_size"), frozenset({6})),
    **dict.fromkeys(("aesthetic_score", "negative_aesthetic_score"), frozenset({5})),
}
"""The fields about size ids, and how many ids the models have that read them."""

LARGEST_APART = 1e-6  # of scaling factors that are the same in two files


def check(model: Model, request: Request) -> None:
    """Raise RequestError for what the model, or the size of a resolved request, does not allow."""
    _check_refiner(model, request)
    _check_ids(model, request)
    for field in GREY:
        if getattr(request, field) and model.family.inpainting:
            raise RequestError(
                f"{field} is given, but {model.name} is an inpainting model, which sees the mask in black and white; "
                "use it with another model",
                field,
            )
    for each in (model, model.refiner if request.refiner is not None else None):
        if each is not None:
            _check_networks(each, request)


def masking(model: Model, request: Request) -> tuple[Model, Request]:
    """The model that draws what is masked, and the request, which says how where the model has a companion for it.

    Raises RequestError for what the model, or what else is asked for, does not allow.
    """
    if model.family.inpainting:
        if request.masking == "blend":
            raise RequestError(f"masking is 'blend', but {model.name} is an inpainting model, which sees it", "masking")
        return model, request
    blended = next((field for field in BLENDED if getattr(request, field)), None)
    if request.masking == "network":
        if model.companion is None:
            raise RequestError(
                f"masking is 'network', but {model.name} has none that sees a mask; leave it out, or use an inpainting "
                "model",
                "masking",
            )
        if blended is not None:
            raise RequestError(
                f"masking is 'network' with {blended}, which is done by blending; leave out one of them", "masking"
            )
    if model.companion is None:
        return model, request
    if request.masking == "blend" or blended is not None:
        return model, replace(request, masking="blend")
    return model.companion.inpainter(model), replace(request, masking="network")


def _check_networks(model: Model, request: Request) -> None:
    assert request.width is not None and request.height is not None
    _check_tiling(model, request.tiling, request.width, request.height)
    if request.perturbed_attention is not None:
        _check_layers(model, request.perturbed_attention)
    least = (BLUR_CELLS // 2 + 1) * model.stride
    if request.self_attention_guidance is not None and min(request.width, request.height) < least:
        raise RequestError(
            f"self_attention_guidance needs pictures of at least {least}x{least}, not {request.width}x"
            f"{request.height}: its blur is {BLUR_CELLS} latent cells wide",
            "self_attention_guidance",
        )


def reshaped(model: Model, request: Request) -> Model:
    """The model with the networks that a resolved request wants: it shares all weights with the one it is made from."""
    if request.tiling is not None:
        model = tiled(model, request.tiling)
    if request.freeu is not None:
        unet = with_freeu(model.unet, **asdict(request.freeu))
        model = replace(model, unet=unet)
    if model.refiner is not None:
        model = replace(model, refiner=reshaped(model.refiner, request))
    return model


def size_ids(request: Request) -> tuple[SizeIds, SizeIds]:
    """What SDXL is told about the picture that is wanted, and about what it should not be."""
    original, crop, target = (_turned(getattr(request, name)) for name in ("original_size", "crop", "target_size"))
    wanted = SizeIds(original, crop or (0, 0), target, _or(request.aesthetic_score, AESTHETIC_SCORE))
    return wanted, SizeIds(
        _turned(request.negative_original_size) or original,
        _turned(request.negative_crop) or crop or (0, 0),
        _turned(request.negative_target_size) or target,
        _or(request.negative_aesthetic_score, NEGATIVE_AESTHETIC_SCORE),
    )


def _turned(pair: tuple[int, int] | None) -> tuple[int, int] | None:
    """Rows before columns, as networks count."""
    return pair and (pair[1], pair[0])


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _check_ids(model: Model, request: Request) -> None:
    """Raise RequestError for size ids and scores that neither the model nor its refiner reads."""
    known = {model.text.rules.sizes}
    if request.refiner is not None and model.refiner is not None:
        known.add(model.refiner.text.rules.sizes)
    for field, counts in IDS.items():
        if getattr(request, field) is not None and not known & counts:
            kind = "SDXL" if 6 in counts else "SDXL's refiner"
            raise RequestError(
                f"{field} is {getattr(request, field)}, but {model.name} is not told of it; only {kind} is", field
            )


def _check_refiner(model: Model, request: Request) -> None:
    """Raise RequestError for a refiner that is not there, or whose latents are not those of the model."""
    if request.refiner is None:
        return
    other = model.refiner
    if other is None:
        raise RequestError(
            f"refiner is {request.refiner.model} but the model has none; give the request to an Engine, or "
            "dataclasses.replace(model, refiner=sfumato.load(...))",
            "refiner",
        )
    apart = abs(model.scaling_factor - other.scaling_factor) > LARGEST_APART
    if apart or (model.latent_channels, model.stride) != (other.latent_channels, other.stride):
        raise RequestError(
            f"refiner is {other.name} ({other.family.title}), whose latents are not those of {model.name} "
            f"({model.family.title}); it must be a model with the same autoencoder",
            "refiner",
        )
    if model.family.inpainting != other.family.inpainting:
        raise RequestError(
            f"refiner is {other.name}; of it and {model.name} one is an inpainting model, and both must be or none",
            "refiner",
        )


def tiled(model: Model, tiling: Tiling) -> Model:
    """The model with networks that see the opposite edge beyond an edge: its pictures repeat without a seam."""
    x, y = tiling != "y", tiling != "x"
    networks = circular(model.unet, x=x, y=y), circular(model.autoencoder, x=x, y=y)
    controls = {name: circular(network, x=x, y=y) for name, network in model.controls.items()}
    return replace(model, unet=networks[0], autoencoder=networks[1], controls=controls)


def _check_tiling(model: Model, tiling: Tiling | None, width: int, height: int) -> None:
    """Raise RequestError for a size at which a picture that tiles would have a seam, or an uneven one."""
    whole = whole_stride(model)
    for field, side, directions in (("width", width, ("x", "both")), ("height", height, ("y", "both"))):
        if tiling in directions and side % whole:
            lower = max(side // whole * whole, whole)
            raise RequestError(
                f"{field} is {side} and tiling {tiling}; this model tiles at multiples of {whole}, such as "
                f"{lower} or {lower + whole}",
                field,
            )


def whole_stride(model: Model) -> int:
    """Pixels per cell at the UNet's lowest resolution, in each direction."""
    return model.stride << (model.unet.config.levels - 1)


def _check_layers(model: Model, by: PerturbedAttention) -> None:
    """Raise RequestError, with the names that there are, for layers that the UNet does not have."""
    try:
        chosen(model.unet, by.layers)
    except ValueError as error:
        raise RequestError(
            f"perturbed_attention.layers has {str(error)!r}, but no block of the UNet has a name that begins so; they "
            f"are {', '.join(self_attentions(model.unet))}",
            "perturbed_attention.layers",
        ) from None
