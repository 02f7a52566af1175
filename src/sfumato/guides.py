"""What a request changes in the networks, and what it needs of them: tiling, FreeU, and guidance by attention."""

from dataclasses import asdict, replace

from sfumato.diffusion.guidance import BLUR_CELLS
from sfumato.errors import RequestError
from sfumato.model import Model
from sfumato.nn.circular import circular
from sfumato.nn.freeu import with_freeu
from sfumato.nn.watched import chosen, self_attentions
from sfumato.request import Request
from sfumato.request.guides import PerturbedAttention, Tiling


def check(model: Model, request: Request) -> None:
    """Raise RequestError for what the model, or the size of a resolved request, does not allow."""
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
    return model


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
