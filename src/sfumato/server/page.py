"""What a browser sees: the studio, where it was built; a plain page where not; and the API's documentation.

None of it loads anything from elsewhere.
"""

import html
import mimetypes
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:3rem auto;padding:0 1rem;color:#222}
code{background:#eee;padding:.1em .3em;border-radius:3px}h2{margin-top:2em}dt{margin-top:1em}
@media (prefers-color-scheme:dark){body{background:#181818;color:#ddd}code{background:#333}}"""
PLAIN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>sfumato</title>
<link rel="stylesheet" href="/assets/plain.css"><h1>sfumato is running</h1>
<p>The studio is not part of this build: it is made with <code>npm ci &amp;&amp; npm run build</code> in
<code>frontend/</code>. The server does everything else.</p>
<ul><li><a href="/docs">What its API can do</a> (<a href="/openapi.json">openapi.json</a>)</li>
<li>From a shell: <code>sfumato txt2img --server http://127.0.0.1:7860 "a red house on green grass"</code></li>
<li>From Python: <code>sfumato.Client("http://127.0.0.1:7860")</code></li></ul></html>"""


Handler = Callable[[Request, Exception], Awaitable[Response]]


class Files(StaticFiles):
    """The built page: what has its hash in its name is kept for ever, the rest is asked for anew."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, with how long it may be kept."""
        response = await super().get_response(path, scope)
        hashed = path.startswith("assets/")
        response.headers["cache-control"] = "public, max-age=31536000, immutable" if hashed else "no-cache"
        return response


def studio() -> Path | None:
    """The folder of the built studio, if this installation has it."""
    folder = Path(str(resources.files("sfumato.server").joinpath("web")))
    return folder if (folder / "index.html").is_file() else None


def page(api: FastAPI, answer: Handler) -> Starlette:
    """What is at `/`; `answer` says what is wrong."""
    mimetypes.add_type("text/javascript", ".js")  # some systems' tables call it text/plain
    folder = studio()

    async def docs(request: Request) -> Response:
        return HTMLResponse(documentation(api.openapi()))

    async def plain(request: Request) -> Response:
        return HTMLResponse(PLAIN, headers={"cache-control": "no-cache"})

    async def style(request: Request) -> Response:
        return Response(STYLE, media_type="text/css")

    routes: list[Route | Mount] = [Route("/docs", docs), Route("/assets/plain.css", style)]
    # only the page's own files, which are the same for everybody: next to a secret, sizes of what is packed tell of it
    routes.append(
        Route("/", plain) if folder is None else Mount("/", GZipMiddleware(Files(directory=folder, html=True)))
    )
    return Starlette(routes=routes, exception_handlers={HTTPException: answer})


def documentation(document: dict[str, Any]) -> str:
    """The API's schema as a page to read."""
    parts = []
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            told = html.escape(about.get("description") or about.get("summary") or "")
            given = [
                f"<code>{html.escape(each['name'])}</code> {html.escape(each.get('description', ''))}"
                for each in about.get("parameters", [])
            ]
            parts.append(f"<dt><code>{method.upper()} {html.escape(path)}</code><dd>{told} {'; '.join(given)}")
    fields = document["components"]["schemas"]["Request"]["properties"]
    of_request = "".join(
        f"<dt><code>{html.escape(name)}</code><dd>{html.escape(about.get('description', ''))}"
        for name, about in fields.items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>sfumato: API</title>'
        '<link rel="stylesheet" href="/assets/plain.css"><h1>The API</h1>'
        '<p>The same for programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"<dl>{''.join(parts)}</dl><h2>The fields of a request</h2><dl>{of_request}</dl></html>"
    )
