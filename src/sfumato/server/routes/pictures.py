"""The gallery, and pictures that are handed in."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import Field
from starlette.datastructures import UploadFile

from sfumato.server.opened import OpenedFile
from sfumato.server.problems import Problem
from sfumato.server.routes.parts import PROBLEMS, Asked, Client, Cursor, Limit, Responses, Search, place
from sfumato.server.values import Job, Picture, Reading, Upload, Value

router = APIRouter(tags=["pictures"], responses=PROBLEMS)

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                }
            },
        },
    }
}
IMAGE: Responses = {
    200: {"content": {"image/png": {}, "image/jpeg": {}, "image/webp": {}}, "description": "The picture."}
}


class Pictures(Value):
    """A page of the gallery."""

    pictures: list[Picture]
    next: str | None
    total: int


class Mark(Value):
    """What people say of a picture."""

    favourite: bool = Field(strict=True)


@router.get("/pictures")
def pictures(
    service: Asked,
    search: Search = "",
    favourite: bool | None = None,
    deleted: bool = False,
    job: Annotated[str | None, Query(max_length=36)] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Pictures:
    """The pictures, newest first; those in the bin with `deleted`."""
    found, following, total = service.pictures(
        search=search, favourite=favourite, deleted=deleted, job=job, limit=limit, before=place(cursor)
    )
    return Pictures(pictures=found, next=None if following is None else str(following), total=total)


@router.get("/pictures/{id}")
def picture(service: Asked, id: str) -> Picture:
    """A picture and its record."""
    return service.picture(id)


@router.patch("/pictures/{id}")
def mark(service: Asked, id: str, body: Mark) -> Picture:
    """Mark a picture."""
    return service.change_picture(id, favourite=body.favourite)


@router.delete("/pictures/{id}")
def delete(service: Asked, id: str) -> Picture:
    """Put a picture into the bin; its file stays."""
    return service.change_picture(id, deleted=True)


@router.post("/pictures/{id}/restore")
def restore(service: Asked, id: str) -> Picture:
    """Take a picture out of the bin."""
    return service.change_picture(id, deleted=False)


@router.post("/pictures/{id}/replay", status_code=202)
def replay(service: Asked, client: Client, id: str) -> Job:
    """Make a picture again from its record; the job's `result` says what came of it."""
    return service.replay(id, client=client)


@router.get("/pictures/{id}/file", response_class=FileResponse, responses=IMAGE)
def file(
    service: Asked, id: str, download: bool = False, format: Literal["png", "jpeg", "webp"] = "png"
) -> FileResponse:
    """The picture's file, with its metadata."""
    name = f"{id}.{'jpg' if format == 'jpeg' else format}"
    return OpenedFile(
        service.open_picture(id, format),
        media_type=f"image/{format}",
        headers=FOREVER,
        filename=name,
        content_disposition_type="attachment" if download else "inline",
    )


@router.get("/pictures/{id}/thumbnail", response_class=FileResponse, responses=IMAGE)
def thumbnail(service: Asked, id: str, size: Annotated[int, Query(ge=16, le=1024)] = 256) -> FileResponse:
    """A small picture of it: within a square of the next power of two above `size`."""
    return OpenedFile(service.open_thumbnail(id, size), media_type="image/webp", headers=FOREVER)


@router.post("/uploads", status_code=201, openapi_extra=BODY)
async def upload(service: Asked, request: Request) -> Upload:
    """Hand in a picture for `image` or `mask`: the body itself, or the part `file` of a form."""
    content = await picture_in(request)
    return await run_in_threadpool(service.add_upload, content)


@router.get("/uploads/{id}/file", response_class=FileResponse, responses=IMAGE)
def upload_file(service: Asked, id: str) -> FileResponse:
    """A picture that was handed in, as PNG; or one of the gallery, by its pixels."""
    return OpenedFile(service.open_pixels(id), media_type="image/png", headers=FOREVER)


@router.post("/read", openapi_extra=BODY)
async def read(service: Asked, request: Request) -> Reading:
    """What a picture's metadata says, whoever wrote it."""
    content = await picture_in(request)
    return await run_in_threadpool(service.read, content)


async def picture_in(request: Request) -> bytes:
    """The picture in a body. Raises Problem for a form without one."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        return await request.body()
    async with request.form(max_files=1, max_fields=8) as form:
        found = form.get("file")
        if not isinstance(found, UploadFile):
            raise Problem(422, "upload.file", "the form has no part `file` that is a file", field="file")
        return await found.read()
