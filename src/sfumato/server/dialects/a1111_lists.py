"""What A1111's lists tell: models, samplers, upscalers and the like, and what there is none of."""

import io
import os
from collections.abc import Callable
from typing import Any

from sfumato.server.catalogue import titled
from sfumato.server.dialects import a1111_controlnet as controlnet
from sfumato.server.dialects.a1111_catalogue import Catalogue, title
from sfumato.server.dialects.a1111_extras import LATENT_MODES, UPSCALERS
from sfumato.server.dialects.a1111_samplers import SAMPLERS, SCHEDULERS
from sfumato.server.dialects.a1111_scripts import LISTED
from sfumato.server.service import Service
from sfumato.server.values import ModelCard
from sfumato.weights.registry import Kind
from sfumato.wording import shelf

NOTHING_TO_DO = (
    "refresh-checkpoints",
    "refresh-vae",
    "refresh-loras",
    "refresh-embeddings",
    "reload-checkpoint",
    "unload-checkpoint",
)


def catalogue(service: Service) -> Catalogue:
    """What can be named on this server."""
    return Catalogue(
        [card for card in service.models() if not card.missing],
        vaes=_places(service, "vae"),
        loras=_places(service, "lora"),
        embeddings=_places(service, "embedding"),
        controls=_places(service, "controlnet"),
        upscalers=_places(service, "upscaler"),
        styles=shelf().styles,
        titled=titled,
    )


def _places(service: Service, kind: Kind) -> dict[str, str]:
    return {each["name"]: each["name"] for each in service.named_files(kind)}


def checkpoint(catalogue: Catalogue, chosen: object) -> dict[str, Any]:
    """The options that say which model is used."""
    card = catalogue.model(chosen)
    return {
        "sd_model_checkpoint": title(card) if card else None,
        "sd_checkpoint_hash": card.hash if card else "",
    }


def sd_models(service: Service, catalogue: Catalogue) -> list[dict[str, Any]]:
    """`/sd-models`. Files are named as they are asked for: where they lie is the server's own affair."""
    return [_sd_model(card) for card in catalogue.models]


def _sd_model(card: ModelCard) -> dict[str, Any]:
    return {
        "title": title(card),
        "model_name": card.name,
        "hash": card.hash[:10] or None,
        "sha256": card.hash or None,
        "filename": card.name,
        "config": None,
    }


def embeddings(service: Service, catalogue: Catalogue) -> dict[str, Any]:
    """`/embeddings`."""
    loaded = {
        each["name"]: {
            "step": None,
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
            "shape": each.get("width", 0),
            "vectors": each.get("vectors", 1),
        }
        for each in service.named_files("embedding")
    }
    return {"loaded": loaded, "skipped": {}}


def memory(service: Service, catalogue: Catalogue) -> dict[str, Any]:
    """`/memory`, in bytes. What a graphics card has free is known to the process that draws alone."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return {"ram": {"free": free, "used": total - free, "total": total}, "cuda": {"error": "unavailable"}}


def cmd_flags(service: Service, catalogue: Catalogue) -> dict[str, Any]:
    """`/cmd-flags`: those of A1111's that say something about this server."""
    settings = service.settings
    return {"api": True, "listen": settings.host not in ("127.0.0.1", "localhost", "::1"), "port": settings.port}


def scripts(service: Service, catalogue: Catalogue) -> dict[str, Any]:
    """`/scripts`."""
    return {"txt2img": list(LISTED), "img2img": list(LISTED)}


def script_info(service: Service, catalogue: Catalogue) -> list[dict[str, Any]]:
    """`/script-info`."""
    return [
        {"name": name, "is_alwayson": True, "is_img2img": img2img, "args": []}
        for img2img in (False, True)
        for name in LISTED
    ]


def upscalers(service: Service, catalogue: Catalogue) -> list[dict[str, Any]]:
    """`/upscalers`: those of the extras and of hires fix, and the networks, which hires fix alone takes."""
    named = {**dict.fromkeys(UPSCALERS), **{name: name for name in catalogue.upscalers}}
    return [
        {"name": name, "model_name": model, "model_path": model, "model_url": None, "scale": 4.0}
        for name, model in named.items()
    ]


def as_png(preview: bytes) -> bytes:
    """A preview of our own as PNG, what A1111's clients expect."""
    from PIL import Image

    content = io.BytesIO()
    with Image.open(io.BytesIO(preview)) as picture:
        picture.save(content, "PNG")
    return content.getvalue()


LISTS: dict[str, Callable[[Service, Catalogue], Any]] = {
    "/sdapi/v1/samplers": lambda service, catalogue: [each.listed() for each in SAMPLERS],
    "/sdapi/v1/schedulers": lambda service, catalogue: [each.listed() for each in SCHEDULERS],
    "/sdapi/v1/sd-models": sd_models,
    "/sdapi/v1/sd-vae": lambda service, found: [{"model_name": name, "filename": name} for name in found.vaes],
    "/sdapi/v1/sd-modules": lambda service, found: [{"model_name": name, "filename": name} for name in found.vaes],
    "/sdapi/v1/loras": lambda service, found: [
        {"name": name, "alias": name, "path": name, "metadata": {}} for name in found.loras
    ],
    "/sdapi/v1/embeddings": embeddings,
    "/sdapi/v1/upscalers": upscalers,
    "/sdapi/v1/latent-upscale-modes": lambda service, catalogue: [{"name": name} for name in LATENT_MODES],
    "/sdapi/v1/prompt-styles": lambda service, found: [
        {"name": name, "prompt": style.prompt, "negative_prompt": style.negative_prompt}
        for name, style in found.styles.items()
    ],
    "/sdapi/v1/memory": memory,
    "/sdapi/v1/cmd-flags": cmd_flags,
    "/sdapi/v1/scripts": scripts,
    "/sdapi/v1/script-info": script_info,
    **{
        f"/sdapi/v1/{name}": lambda service, catalogue: []
        for name in ("hypernetworks", "face-restorers", "realesrgan-models", "extensions")
    },
    "/internal/ping": lambda service, catalogue: {},
    "/controlnet/version": lambda service, catalogue: {"version": 3},
    "/controlnet/model_list": lambda service, found: controlnet.model_list(found),
    "/controlnet/module_list": lambda service, catalogue: controlnet.module_list(),
    "/controlnet/control_types": lambda service, found: controlnet.control_types(found),
    "/controlnet/settings": lambda service, catalogue: {"control_net_unit_count": 3},
}
