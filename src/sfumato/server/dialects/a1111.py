"""A1111's HTTP API, `/sdapi/v1` and what belongs to it: its routes, and what each asks of the service.

A request is drawn even if its client is gone; `interrupt` and `skip` are for the job that runs, if it came this way.
"""

import asyncio
import contextlib
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sfumato.errors import RequestError, SfumatoError
from sfumato.server.dialects import a1111_lists as lists
from sfumato.server.dialects.a1111_answers import answer
from sfumato.server.dialects.a1111_catalogue import Catalogue
from sfumato.server.dialects.a1111_controlnet import preprocessor_of
from sfumato.server.dialects.a1111_extras import upscaled
from sfumato.server.dialects.a1111_fields import Fields, refuse
from sfumato.server.dialects.a1111_infotext import filled_in, parameters_of
from sfumato.server.dialects.a1111_lowering import Order, as_a1111, lower, picture_fields
from sfumato.server.dialects.a1111_options import FORMATS, Options
from sfumato.server.dialects.a1111_progress import progress, task
from sfumato.server.dialects.encoded import decode_picture, encode_picture
from sfumato.server.dialects.masks import where_drawn
from sfumato.server.problems import Problem, as_problem, check_drawn
from sfumato.server.service import Service
from sfumato.server.values import Job

log = logging.getLogger(__name__)

API = "a1111"
ROOMS = ("sdapi", "controlnet")
TASKS = 1024  # of `force_task_id` that are remembered

Handler = Callable[[HttpRequest], Awaitable[Any]]


class A1111:
    """The handlers; each returns what is answered as JSON."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._options = Options(service.settings.data / "a1111-options.json")
        self._tasks: OrderedDict[str, str] = OrderedDict()

    def routes(self) -> list[Route]:
        """Every route of the API."""
        posts: dict[str, Handler] = {
            "/sdapi/v1/txt2img": self.txt2img,
            "/sdapi/v1/img2img": self.img2img,
            "/sdapi/v1/interrupt": self.interrupt,
            "/sdapi/v1/skip": self.skip,
            "/sdapi/v1/options": self.set_options,
            "/sdapi/v1/png-info": self.png_info,
            "/sdapi/v1/extra-single-image": self.extra_single_image,
            "/sdapi/v1/extra-batch-images": self.extra_batch_images,
            "/sdapi/v1/interrogate": self.interrogate,
            "/internal/progress": self.internal_progress,
            "/controlnet/detect": self.detect,
            **{f"/sdapi/v1/{name}": self.nothing for name in lists.NOTHING_TO_DO},
        }
        gets: dict[str, Handler] = {
            "/sdapi/v1/progress": self.progress,
            "/sdapi/v1/options": self.get_options,
            "/internal/pending-tasks": self.pending_tasks,
            **{path: self._listing(make) for path, make in lists.LISTS.items()},
        }
        return [
            *(Route(path, answered(handler), methods=["POST"]) for path, handler in posts.items()),
            *(Route(path, answered(handler), methods=["GET"]) for path, handler in gets.items()),
            *(Route(f"/{room}/{{path:path}}", answered(self.unknown), methods=["GET", "POST"]) for room in ROOMS),
        ]

    # --- drawing ----------------------------------------------------------------------------------------------------

    async def txt2img(self, request: HttpRequest) -> dict[str, Any]:
        """Draw from words."""
        return await self._draw(request, img2img=False)

    async def img2img(self, request: HttpRequest) -> dict[str, Any]:
        """Draw from a picture."""
        return await self._draw(request, img2img=True)

    async def _draw(self, request: HttpRequest, *, img2img: bool) -> dict[str, Any]:
        body = filled_in(await read_object(request))
        job, order = await asyncio.to_thread(self._submit, body, client_of(request), img2img=img2img)
        if task_id := body.get("force_task_id"):
            self._tasks[str(task_id)] = job.id
            while len(self._tasks) > TASKS:
                self._tasks.popitem(last=False)
        job = await self._service.wait(job.id)
        if job.state != "cancelled":  # what an interrupted job has drawn is its result
            check_drawn(job)
        catalogue = await asyncio.to_thread(lists.catalogue, self._service)
        return await asyncio.to_thread(self._answer, job, order, body, catalogue, img2img=img2img)

    def _submit(self, body: Mapping[str, Any], client: str, *, img2img: bool) -> tuple[Job, Order]:
        catalogue = lists.catalogue(self._service)
        encoded = picture_fields(body, img2img=img2img)
        rounded = Fields(body).flag("mask_round", True)
        pictures = {name: self._upload(name, text, rounded=rounded) for name, text in encoded.items()}
        order = lower(body, self._options.all(), catalogue, pictures, img2img=img2img)
        try:
            return self._service.submit(order.request, api=API, client=client), order
        except RequestError as error:
            raise as_a1111(error) from error

    def _upload(self, name: str, text: str, *, rounded: bool) -> str:
        """The id of a picture of the body; a mask is read from what A1111 reads it from."""
        field = {"image": "init_images", "mask": "mask"}.get(name, "alwayson_scripts")
        upload = self._service.add_upload(decode_picture(field, text))
        if name != "mask":
            return upload.id
        file = self._service.pixels_bytes(upload.id)
        made = where_drawn(file, rounded=rounded)
        return upload.id if made is None else self._service.add_upload(made).id

    def _answer(
        self, job: Job, order: Order, body: Mapping[str, Any], catalogue: Catalogue, *, img2img: bool
    ) -> dict[str, Any]:
        kind = FORMATS[str(order.options["samples_format"]).lower()]
        files = [self._service.picture_bytes(picture.id, kind) for picture in job.pictures]
        seen = self._seen(job, order) if body.get("send_images") in (None, True) else []
        return answer(job, files, order, body, catalogue, img2img=img2img, seen=seen)

    def _seen(self, job: Job, order: Order) -> list[bytes]:
        """What the control networks saw, which their extension hands back after the pictures unless an option says no.

        Of a mask, which `inpaint` sees, A1111's clients have the picture already. What was thrown away meanwhile, or
        cannot be read just now, is left out: the pictures that were drawn are what was asked for.
        """
        request, size = order.request, (job.request["width"], job.request["height"])
        if order.options["control_net_no_detectmap"]:
            return []
        found = []
        for control in request.controls:
            if control.preprocessor != "inpaint":
                with contextlib.suppress(Problem):
                    source = self._service.pixels_bytes(control.image or request.image or "")
                    how = (control.preprocessor, control.options)
                    found.append(self._service.seen(source, *how, size=size, resize=control.resize))
        return found

    # --- the running job --------------------------------------------------------------------------------------------

    async def progress(self, request: HttpRequest) -> dict[str, Any]:
        """How far the running job is."""
        job = await asyncio.to_thread(self._running)
        skip = request.query_params.get("skip_current_image", "").lower() in ("true", "1")
        return progress(job, None if job is None or skip else self._preview(job), halting=bool(job and job.cancelling))

    async def interrupt(self, request: HttpRequest) -> dict[str, Any]:
        """End the running job; what it has drawn so far is its result."""
        await asyncio.to_thread(self._halt, skip=False)
        return {}

    async def skip(self, request: HttpRequest) -> dict[str, Any]:
        """End the pictures that are being drawn, and go on with the job's next ones."""
        await asyncio.to_thread(self._halt, skip=True)
        return {}

    def _halt(self, *, skip: bool) -> None:
        for job in self._service.running():
            if job.api == API:
                self._service.halt(job.id, "skip" if skip else "stop")

    def _running(self) -> Job | None:
        return next(iter(self._service.running()), None)

    def _preview(self, job: Job) -> bytes | None:
        url = self._service.preview(job.id)
        return None if url is None else lists.as_png(decode_picture("preview", url))

    async def internal_progress(self, request: HttpRequest) -> dict[str, Any]:
        """How far the job of a task id is."""
        body = await read_object(request)
        id = self._tasks.get(str(body.get("id_task")))
        job = None if id is None else await asyncio.to_thread(self._service.job, id)
        return task(job, body, self._preview(job) if job and job.state == "running" else None)

    async def pending_tasks(self, request: HttpRequest) -> dict[str, Any]:
        """The task ids of the jobs that wait."""
        waiting = set(await asyncio.to_thread(self._service.waiting))
        tasks = [task for task, id in self._tasks.items() if id in waiting]
        return {"size": len(tasks), "tasks": tasks}

    # --- options ----------------------------------------------------------------------------------------------------

    async def get_options(self, request: HttpRequest) -> dict[str, Any]:
        """What is set."""
        options = self._options.all()
        catalogue = await asyncio.to_thread(lists.catalogue, self._service)
        return options | lists.checkpoint(catalogue, options["sd_model_checkpoint"])

    async def set_options(self, request: HttpRequest) -> None:
        """Change some."""
        body = await read_object(request)
        if body.get("sd_model_checkpoint") is not None:
            catalogue = await asyncio.to_thread(lists.catalogue, self._service)
            try:
                catalogue.model(body["sd_model_checkpoint"])
            except Problem as problem:
                raise Problem(500, "model.unknown", f"model {body['sd_model_checkpoint']!r} not found") from problem
        await asyncio.to_thread(self._options.set, body)

    # --- pictures without drawing -----------------------------------------------------------------------------------

    async def png_info(self, request: HttpRequest) -> dict[str, Any]:
        """What a picture's metadata says."""
        body = await read_object(request)
        content = decode_picture("image", str(body.get("image", "")).strip())
        reading = await asyncio.to_thread(self._service.read, content)
        return {"info": reading.text, "items": {}, "parameters": parameters_of(reading.text)}

    async def extra_single_image(self, request: HttpRequest) -> dict[str, Any]:
        """Scale a picture."""
        body = await read_object(request)
        picture, said = await asyncio.to_thread(self._extra, body.get("image"), body, "image")
        return {"html_info": said, "image": encode_picture(picture)}

    async def extra_batch_images(self, request: HttpRequest) -> dict[str, Any]:
        """Scale several."""
        body = await read_object(request)
        results = []
        for each in Fields(body).items("imageList"):
            data = each.get("data") if isinstance(each, dict) else None
            results.append(await asyncio.to_thread(self._extra, data, body, "imageList"))
        return {
            "html_info": "".join(said for _, said in results),
            "images": [encode_picture(picture) for picture, _ in results],
        }

    def _extra(self, text: object, body: Mapping[str, Any], field: str) -> tuple[bytes, str]:
        upload = self._service.add_upload(decode_picture(field, text))
        file = self._service.pixels_bytes(upload.id)
        return upscaled(file, body, upload.metadata.text if upload.metadata else "")

    async def interrogate(self, request: HttpRequest) -> None:
        """There is no network here that says in words what a picture shows."""
        raise Problem(501, "interrogate", "sfumato has no model that captions pictures")

    async def detect(self, request: HttpRequest) -> dict[str, Any]:
        """What a control network would see of pictures, at their own size."""
        fields = Fields(await read_object(request))
        name = "controlnet_images" if fields.has("controlnet_images") else "controlnet_input_images"
        preprocessor, options = preprocessor_of(fields, "controlnet_")
        pictures = [decode_picture(name, text) for text in fields.items(name)]
        if not pictures:
            raise refuse(name, "is empty; send at least one picture")
        made = [await asyncio.to_thread(self._detected, each, preprocessor, options) for each in pictures]
        return {"images": [encode_picture(each) for each in made], "info": "Success"}

    def _detected(self, content: bytes, preprocessor: str, options: Mapping[str, float]) -> bytes:
        try:
            return self._service.seen(content, preprocessor, options)
        except RequestError as error:
            raise refuse("controlnet_module", f"cannot do that: {error}") from error

    async def nothing(self, request: HttpRequest) -> dict[str, Any]:
        """Files are looked at anew every second, and models are kept as memory allows: there is nothing to do."""
        return {}

    async def unknown(self, request: HttpRequest) -> None:
        """A route of A1111's, or of one of its extensions, that is not there."""
        raise Problem(404, "route.unknown", f"Not Found: {request.method} {request.url.path}")

    def _listing(self, make: Callable[[Service, Catalogue], Any]) -> Handler:
        async def listing(request: HttpRequest) -> Any:
            return await asyncio.to_thread(lambda: make(self._service, lists.catalogue(self._service)))

        return listing


def answered(handler: Handler) -> Callable[[HttpRequest], Awaitable[Response]]:
    """The handler's result as JSON, and problems in A1111's form."""

    async def answer(request: HttpRequest) -> Response:
        try:
            return JSONResponse(await handler(request))
        except SfumatoError as error:
            return refusal(as_problem(error))

    return answer


def refusal(problem: Problem) -> Response:
    """A problem as A1111 says it: a wrong field as FastAPI does, anything else in one text."""
    detail: Any = problem.detail
    if problem.status == 422 and problem.field is not None:
        detail = [{"loc": ["body", problem.field], "msg": problem.detail, "type": "value_error"}]
    body = {"error": "HTTPException", "detail": detail, "body": "", "errors": problem.detail}
    headers = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
    return JSONResponse(body, problem.status, headers)


async def read_object(request: HttpRequest) -> dict[str, Any]:
    """The JSON object in a request's body; none is an empty one. Raises Problem 422."""
    content = await request.body()
    if not content.strip():
        return {}
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Problem(422, "body.json", f"the body is not JSON: {error}", field="body") from None
    if not isinstance(body, dict):
        raise Problem(422, "body.json", "the body must be a JSON object of fields", field="body")
    return body


def client_of(request: HttpRequest) -> str:
    """Who asks: the address."""
    return request.client.host if request.client else ""
