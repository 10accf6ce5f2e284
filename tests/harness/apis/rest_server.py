"""REST server with scripted responses. It runs as a separate process.

Usage: `python -m harness.apis.rest_server PORT`. GET /seen returns the received requests, and
DELETE /seen clears them. PUT /openapi.json replaces the served document.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from harness.apis.rest_document import document

PNG = b"\x89PNG\r\n\x1a\n\x00"
API = "/api/v1"
PATHS = "{path:path}"


class Rest:
    """The document and the received requests."""

    def __init__(self) -> None:
        self.document: Any = document()
        self.status = 200
        self.seen: list[dict[str, Any]] = []

    async def described(self, request: Request) -> Response:
        """Return the document, or replace it."""
        if request.method == "PUT":
            self.document = await request.json()
            self.status = 200 if self.document else 503
        return JSONResponse(self.document, self.status)

    async def received(self, request: Request) -> Response:
        """Return the received requests, or clear them."""
        if request.method == "DELETE":
            self.seen.clear()
        return JSONResponse(self.seen)

    async def api(self, request: Request) -> Response:
        """Return the response to one request of the API."""
        note = {
            "method": request.method,
            "path": request.scope["raw_path"].decode(),
            "query": request.scope["query_string"].decode(),
            "pairs": request.query_params.multi_items(),
            "headers": dict(request.headers),
        }
        media = request.headers.get("content-type", "")
        note["body"] = (
            await form(request)
            if "form" in media
            else await request.json()
            if "json" in media
            else (await request.body()).decode()
        )
        self.seen.append(note)
        return await answer(request, note)


async def form(request: Request) -> list[list[Any]]:
    """Return the parts of a form as Starlette parses them."""
    found = []
    for name, part in (await request.form()).multi_items():
        if isinstance(part, UploadFile):
            items: Any = [part.filename, part.content_type, (await part.read()).decode("latin-1")]
        else:
            items = part
        found.append([name, items])
    return found


async def answer(request: Request, note: dict[str, Any]) -> Response:
    """Return the response for a path."""
    path = request.url.path.removeprefix(API)
    if path.startswith("/fail/"):
        message = request.query_params.get("text", "")
        return PlainTextResponse(
            f"{message} {request.headers.get('authorization')}", int(path.removeprefix("/fail/"))
        )
    if path == "/moved":
        return RedirectResponse(f"{API}/pets?limit=1", 302)
    if path == "/away":
        return RedirectResponse(request.query_params["to"], 302)
    if path == "/large":
        return PlainTextResponse("x" * int(request.query_params["size"]))
    if path == "/indiscreet":
        return StreamingResponse(indiscreet(request), media_type="text/plain")
    if path == "/slow":
        await asyncio.sleep(60)
    if path == "/die":
        os._exit(1)
    return of_pets(request, path, note)


async def indiscreet(request: Request) -> AsyncIterator[str]:
    """Return a long text that repeats the received token. A chunk boundary splits the token."""
    token = request.headers["authorization"]
    for _ in range(int(request.query_params["size"]) // 65_536):
        yield "x" * 65_530 + token[:9]
        await asyncio.sleep(0)
        yield token[9:]


def of_pets(request: Request, path: str, note: dict[str, Any]) -> Response:
    """Return the response to a request for pets."""
    if path == "/pets" and request.method == "GET":
        following = {"link": f'<{API}/pets?page=2>; rel="next"'}
        return JSONResponse([{"id": 1, "name": "Rex"}], headers=following)
    if path == "/pets":
        return JSONResponse({"id": 2, **note["body"]}, 201)
    if path.endswith("/photo"):
        return (
            Response(PNG, media_type="image/png") if request.method == "GET" else JSONResponse({})
        )
    if request.method == "GET" and path.startswith("/pets/"):
        return JSONResponse({"id": 1, "name": path.removeprefix("/pets/"), "tag": None})
    if request.method == "HEAD":
        return Response(headers={"content-length": "12345", "etag": '"e"'})
    return Response(status_code=204)


def app() -> Starlette:
    """Return the ASGI application."""
    rest = Rest()
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    return Starlette(
        routes=[
            Route("/openapi.json", rest.described, methods=["GET", "PUT"]),
            Route("/seen", rest.received, methods=["GET", "DELETE"]),
            Route(f"{API}/{PATHS}", rest.api, methods=methods),
        ]
    )


if __name__ == "__main__":
    uvicorn.run(app(), port=int(sys.argv[1]), log_level="warning", lifespan="off")
