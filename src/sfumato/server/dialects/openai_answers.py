"""From a job to OpenAI's answers: the images object, the events of a stream, models and errors."""

import calendar
import io
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sfumato.server.dialects.encoded import encode_picture
from sfumato.server.dialects.openai_lowering import Endpoint, Order
from sfumato.server.problems import Problem
from sfumato.server.values import Job, ModelCard, Picture

STREAMED: dict[str, str] = {"generations": "image_generation", "edits": "image_edit", "variations": "image_edit"}
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "invalid_request_error", 429: "rate_limit_error"}


def images(job: Job, files: Sequence[bytes], order: Order, urls: Sequence[str], text_tokens: int) -> dict[str, Any]:
    """The answer of a job that is done: its pictures as base64, or as addresses on this server."""
    if order.response_format == "url":
        data = [{"url": url} for url in urls]
    else:
        data = [{"b64_json": encode_picture(as_format(file, order))} for file in files]
    return {
        "created": seconds(job.created),
        "data": data,
        "background": "opaque",
        "output_format": order.output_format,
        **({"size": size(job.pictures[0])} if job.pictures else {}),
        "usage": usage(text_tokens),
    }


def usage(text_tokens: int) -> dict[str, Any]:
    """The tokens that the text encoder read. Pictures are not made of tokens here."""
    return {
        "input_tokens": text_tokens,
        "output_tokens": 0,
        "total_tokens": text_tokens,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": text_tokens},
    }


def partial_event(endpoint: Endpoint, picture: bytes, order: Order, job: Job, index: int) -> bytes:
    """The event of a picture that is not done yet: partial image `index`, from 0."""
    return _event(f"{STREAMED[endpoint]}.partial_image", picture, order, job, {"partial_image_index": index})


def completed_event(endpoint: Endpoint, picture: bytes, order: Order, job: Job, text_tokens: int) -> bytes:
    """The event of a finished picture."""
    return _event(f"{STREAMED[endpoint]}.completed", picture, order, job, {"usage": usage(text_tokens)})


def _event(kind: str, picture: bytes, order: Order, job: Job, more: Mapping[str, Any]) -> bytes:
    data = {
        "type": kind,
        "b64_json": encode_picture(picture),
        "background": "opaque",
        "created_at": int(time.time()),
        "output_format": order.output_format,
        "quality": "auto",
        "size": f"{job.request.get('width')}x{job.request.get('height')}",
        **more,
    }
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def error_event(problem: Problem) -> bytes:
    """The event of a stream that ends without its picture."""
    return f"event: error\ndata: {json.dumps(error(problem))}\n\n".encode()


def error(problem: Problem) -> dict[str, Any]:
    """OpenAI's form of a problem."""
    kind = _TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    message = problem.detail if problem.hint is None else f"{problem.detail} ({problem.hint})"
    return {"error": {"message": message, "type": kind, "param": problem.field, "code": problem.code}}


def model(card: ModelCard, since: float) -> dict[str, Any]:
    """A model as OpenAI lists it. When it was made is not known: it is there since the server is."""
    return {"id": card.name, "object": "model", "created": int(since), "owned_by": "local"}


def size(picture: Picture) -> str:
    """A picture's size as OpenAI writes it."""
    return f"{picture.width}x{picture.height}"


def seconds(time_: str) -> int:
    """A time in ISO 8601, UTC, as seconds since 1970."""
    return calendar.timegm(time.strptime(time_[:19], "%Y-%m-%dT%H:%M:%S"))


def as_format(file: bytes, order: Order) -> bytes:
    """A picture's PNG in the format that is asked for; JPEG and WebP in the quality of `output_compression`."""
    if order.output_format == "png":
        return file
    from PIL import Image

    with Image.open(io.BytesIO(file)) as picture:
        return written(picture.convert("RGB"), order)


def preview_as_format(preview: bytes, order: Order, size: tuple[int, int]) -> bytes:
    """A preview, at the size and in the format of the picture that it shows."""
    from PIL import Image

    with Image.open(io.BytesIO(preview)) as picture:
        return written(picture.convert("RGB").resize(size, Image.Resampling.BILINEAR), order)


def written(picture: Any, order: Order) -> bytes:
    """A Pillow picture as a file's bytes, without metadata."""
    content = io.BytesIO()
    picture.save(content, order.output_format.upper(), quality=max(order.compression, 1))
    return content.getvalue()
