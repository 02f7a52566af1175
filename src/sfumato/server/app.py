"""The application: the native API, the page, what says how the server is, and the guard around all."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

import sfumato
from sfumato.errors import SfumatoError
from sfumato.server.dialects.a1111 import A1111
from sfumato.server.dialects.openai import OpenAI
from sfumato.server.guard import Guard
from sfumato.server.page import page
from sfumato.server.problems import Problem, as_problem
from sfumato.server.routes import catalogue, controls, events, jobs, pictures, status
from sfumato.server.schema_of_request import request_schema
from sfumato.server.service import Service
from sfumato.server.views import PREFIX

CODES = {404: "route.unknown", 405: "method", 400: "request.form", 406: "accept"}
DETAILS = {404: "there is nothing at this path", 405: "this path does not take this method"}


def make_app(service: Service) -> ASGIApp:
    """The whole application of a service, behind its guard."""
    api = make_api(service)
    return Guard(api, service.settings, draining=lambda: service.draining)


def make_api(service: Service) -> FastAPI:
    """The routes. The service is started before the first request and stopped after the last."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    api = FastAPI(
        title="sfumato",
        version=sfumato.__version__,
        description="Pictures from words: a queue, its events and a gallery.",
        lifespan=life,
        docs_url=None,  # FastAPI's pages load scripts from elsewhere; ours is in `page`
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    api.state.service = service
    for kind in (RequestValidationError, HTTPException, SfumatoError, MemoryError):
        api.add_exception_handler(kind, answer)
    for routes in (jobs, events, pictures, catalogue, controls):
        api.include_router(routes.router, prefix=PREFIX)
    api.include_router(status.router)
    api.router.routes.extend([*A1111(service).routes(), *OpenAI(service).routes()])
    api.openapi = with_request(api.openapi)  # type: ignore[method-assign]  # FastAPI's own way to change a schema
    api.mount("/", page(api, answer))
    return api


async def answer(request: Request, error: Exception) -> Response:
    """What is wrong, as a problem."""
    problem = as_problem(told(error))
    return Response(problem.body(), problem.status, headers=problem.headers())


def told(error: Exception) -> Exception:
    """FastAPI's and Starlette's own errors as ours."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            broken = json.JSONDecodeError(first["ctx"]["error"], str(error.body), int(first["loc"][-1]))
            return Problem(422, "body.json", f"the body is not JSON: {broken}")
        place = [str(each) for each in first["loc"]]
        field = ".".join(place[1:]) or place[0]
        return Problem(422, "request.shape", f"{field}: {first['msg']}", field=field)
    if isinstance(error, HTTPException):
        code = CODES.get(error.status_code, "request")
        return Problem(error.status_code, code, DETAILS.get(error.status_code, str(error.detail)))
    return error


def with_request(plain: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """The API's schema, in which a job's `request` has the fields of a request."""

    def openapi() -> dict[str, Any]:
        document = plain()
        schemas = document["components"]["schemas"]
        if "Request" not in schemas:
            request = dict(request_schema())
            schemas |= request.pop("$defs", {})
            schemas["Request"] = request
            schemas["NewJob"]["properties"]["request"] = {"$ref": "#/components/schemas/Request"}
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
        return document

    return openapi
