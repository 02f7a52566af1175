"""OpenAI's image API, `/v1/images` and `/v1/models`: its routes. A job ends when its client is gone."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from sfumato.errors import RequestError, SfumatoError
from sfumato.server.dialects.masks import where_transparent, without_alpha
from sfumato.server.dialects.openai_answers import error, images, model
from sfumato.server.dialects.openai_lowering import OPENAIS, Endpoint, Order, as_openai, lower, wrong
from sfumato.server.dialects.openai_stream import stream
from sfumato.server.opened import OpenedFile
from sfumato.server.problems import Problem, as_problem, check_drawn
from sfumato.server.service import Service
from sfumato.server.values import Job

API = "openai"
FIELDS, FILES = 100, 4  # of a form; OpenAI's own have fifteen, and we take two files
SUFFIXES = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}

Handler = Callable[[HttpRequest], Awaitable[Response]]


class OpenAI:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Every route of the API."""
        return [
            Route("/v1/images/generations", answered(self.generations), methods=["POST"]),
            Route("/v1/images/edits", answered(self.edits), methods=["POST"]),
            Route("/v1/images/variations", answered(self.variations), methods=["POST"]),
            Route("/v1/images/files/{name}", answered(self.file), methods=["GET"], name="openai_file"),
            Route("/v1/models", answered(self.models), methods=["GET"]),
            Route("/v1/models/{id:path}", answered(self.model), methods=["GET"]),
            Route("/v1/{path:path}", answered(self.unknown), methods=["GET", "POST", "DELETE"]),
        ]

    async def generations(self, request: HttpRequest) -> Response:
        """Draw from words."""
        try:
            body = json.loads(await request.body())
        except (ValueError, RecursionError) as problem:
            raise wrong(
                "body", f"We could not parse the JSON body of your request: {problem}", "invalid_json"
            ) from None
        if not isinstance(body, dict):
            raise wrong("body", "The body of your request must be a JSON object.", "invalid_json")
        return await self._draw(request, body, {}, "generations")

    async def edits(self, request: HttpRequest) -> Response:
        """Draw from a picture, perhaps within a mask."""
        return await self._draw_form(request, "edits")

    async def variations(self, request: HttpRequest) -> Response:
        """Draw a picture again, differently."""
        return await self._draw_form(request, "variations")

    async def _draw_form(self, request: HttpRequest, endpoint: Endpoint) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise wrong(
                "image", "Send a form, multipart/form-data, with the picture as 'image'.", "invalid_content_type"
            )
        async with request.form(max_files=FILES, max_fields=FIELDS) as form:
            texts = {name: value for name, value in form.items() if isinstance(value, str)}
            files = [(name, await value.read()) for name, value in form.multi_items() if isinstance(value, UploadFile)]
        return await self._draw(request, texts, one_of_each(files), endpoint)

    async def _draw(
        self, request: HttpRequest, body: Mapping[str, Any], files: Mapping[str, bytes], endpoint: Endpoint
    ) -> Response:
        client = request.client.host if request.client else ""
        job, order = await asyncio.to_thread(self._submit, body, files, endpoint, client)
        tokens = await asyncio.to_thread(self._text_tokens, job)
        if order.stream:
            return StreamingResponse(
                self._kept(job, stream(self._service, job, order, endpoint, tokens)),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )
        job = await self._while_there(request, job)
        check_drawn(job)
        kind = "jpg" if order.output_format == "jpeg" else order.output_format
        urls = [str(request.url_for("openai_file", name=f"{picture.id}.{kind}")) for picture in job.pictures]
        return JSONResponse(await asyncio.to_thread(self._answer, job, order, urls, tokens))

    def _submit(
        self, body: Mapping[str, Any], files: Mapping[str, bytes], endpoint: Endpoint, client: str
    ) -> tuple[Job, Order]:
        lower(body, dict.fromkeys(files, "sha256:"), endpoint)  # what is wrong is said before pictures are read
        order = lower(body, self._pictures(files, endpoint), endpoint)
        named = order.request.model
        if named is not None and named not in self._service.catalogue.known() and OPENAIS.fullmatch(named):
            order = replace(order, request=replace(order.request, model=None))
        elif named is not None:
            self._card(named)
        try:
            return self._service.submit(order.request, api=API, client=client), order
        except RequestError as problem:
            raise as_openai(problem) from problem

    def _pictures(self, files: Mapping[str, bytes], endpoint: Endpoint) -> dict[str, str]:
        """The ids of the pictures. What is transparent in the mask, or else in the picture itself, is repainted."""
        ids, masked = {}, None
        for name, content in files.items():
            try:
                upload = self._service.add_upload(content)
            except Problem as problem:
                raise wrong(name, f"Invalid image: {problem.detail}", "invalid_image") from problem
            kept = self._service.pixels_bytes(upload.id)
            mask = where_transparent(kept)
            if name == "mask":
                if mask is None:
                    raise wrong("mask", "The mask has no fully transparent parts; these say where to edit.")
                masked = mask
            else:
                masked = masked or mask
                ids[name] = upload.id if mask is None else self._service.add_upload(without_alpha(kept)).id
        if masked is not None and endpoint == "edits":
            ids["mask"] = self._service.add_upload(masked).id
        return ids

    def _answer(self, job: Job, order: Order, urls: Sequence[str], tokens: int) -> dict[str, Any]:
        wanted = job.pictures if order.response_format == "b64_json" else []
        files = [self._service.picture_bytes(picture.id) for picture in wanted]
        return images(job, files, order, urls, tokens)

    def _text_tokens(self, job: Job) -> int:
        """How many tokens the text encoder reads of the prompts."""
        model, texts = job.request.get("model"), (job.request.get("prompt", ""), job.request.get("negative_prompt", ""))
        try:
            return sum(len(self._service.catalogue.tokens(str(text), model).ids) for text in texts)
        except SfumatoError:
            return 0

    async def _while_there(self, request: HttpRequest, job: Job) -> Job:
        """The job when it has ended; it is cancelled when its client goes."""
        waiting = asyncio.ensure_future(self._service.wait(job.id))
        try:
            while not waiting.done() and not await request.is_disconnected():
                await asyncio.wait([waiting], timeout=0.5)
            if not waiting.done():
                await asyncio.to_thread(self._service.cancel, job.id)
            return await waiting
        finally:
            waiting.cancel()

    async def _kept(self, job: Job, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The events; when nobody listens to them any more the job is cancelled, which an ended one does not mind."""
        try:
            async for event in events:
                yield event
        except BaseException:  # what is awaited in a cancelled task is cancelled too, so that this is left to a thread
            asyncio.get_running_loop().run_in_executor(None, self._service.cancel, job.id)
            raise

    async def file(self, request: HttpRequest) -> Response:
        """A picture that an answer gave the address of."""
        id, _, suffix = request.path_params["name"].rpartition(".")
        if suffix not in SUFFIXES:
            raise Problem(404, "picture.unknown", "there is no such picture")
        file = await asyncio.to_thread(self._service.open_picture, id, SUFFIXES[suffix])
        return OpenedFile(file, media_type=f"image/{SUFFIXES[suffix]}")

    async def models(self, request: HttpRequest) -> Response:
        """The models that can be named."""
        cards = await asyncio.to_thread(self._service.models)
        return JSONResponse({"object": "list", "data": [model(card, self._service.started) for card in cards]})

    async def model(self, request: HttpRequest) -> Response:
        """One of them."""
        return JSONResponse(
            model(await asyncio.to_thread(self._card, request.path_params["id"]), self._service.started)
        )

    async def unknown(self, request: HttpRequest) -> Response:
        """A route of OpenAI's that is not there: chats, embeddings, ..."""
        told = f"Unknown request URL: {request.method} {request.url.path}; there are /v1/images and /v1/models."
        raise Problem(404, "unknown_url", told)

    def _card(self, name: str) -> Any:
        try:
            return self._service.model(name)
        except Problem as problem:
            known = ", ".join(card.name for card in self._service.models())
            told = f"The model '{name}' does not exist; there are {known}"
            raise Problem(404, "model_not_found", told, field="model") from problem


def one_of_each(files: Sequence[tuple[str, bytes]]) -> dict[str, bytes]:
    """The pictures of a form by name. Clients send several as `image[]`; we begin with one."""
    found: dict[str, bytes] = {}
    for name, content in files:
        plain = name.removesuffix("[]")
        if plain not in ("image", "mask"):
            raise wrong(name, f"Unknown parameter: '{name}'.", "unknown_parameter")
        if plain in found:
            raise wrong(plain, f"One picture as '{plain}' is supported; there are several.")
        found[plain] = content
    return found


def answered(handler: Handler) -> Handler:
    """The handler's answer, and problems in OpenAI's form."""

    async def answer(request: HttpRequest) -> Response:
        try:
            return await handler(request)
        except SfumatoError as failure:
            problem = as_problem(failure)
            status = 400 if problem.status == 422 else problem.status
            headers = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
            return JSONResponse(error(problem), status, headers)

    return answer
