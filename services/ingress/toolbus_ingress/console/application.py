"""The FastAPI application of the console; imported for the first request (see `RestApis`)."""

from collections.abc import MutableMapping
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response as HTTPResponse

from toolbus_common.errors import ToolbusError
from toolbus_common.http_server.body import Receive
from toolbus_common.web import html
from toolbus_ingress.console import PREFIX
from toolbus_ingress.console.account import router as account
from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.operation import guards, models, overview, revisions, runs, settings
from toolbus_ingress.console.pages import (
    approvals,
    budgets,
    calls,
    configuration,
    entries,
    health,
    keys,
    live,
    rules,
    servers,
    tools,
)
from toolbus_ingress.console.records import analytics, audit, erasure, statements
from toolbus_ingress.console.responses import redirect, render
from toolbus_ingress.console.session import SessionCookie
from toolbus_ingress.console.sign_in import router as sign_in
from toolbus_ingress.console.visitor import ForeignFormError, SignInNeededError
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import RejectedRequestError
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.rest.application import Application, collected

_MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FOREIGN = "This form is not from your session. Open the page again, and repeat the change."
static = APIRouter()


class Console(FastAPI):
    """All pages of the console."""

    def __init__(self, endpoint: Endpoint, rest: Application, cookie: SessionCookie) -> None:
        super().__init__(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
        html.load()
        self.endpoint = endpoint
        self.rest = rest
        self.cookie = cookie
        handlers: dict[type[Exception], Any] = {
            SignInNeededError: _sign_in_needed,
            ForeignFormError: _foreign_form,
            ProblemError: _problem,
            ToolbusError: _failure,
            RejectedRequestError: _rejection,
            HTTPException: _http_error,
        }
        for error, handler in handlers.items():
            self.add_exception_handler(error, handler)
        pages = (
            overview,
            health,
            live,
            statements,
            calls,
            servers,
            tools,
            keys,
            budgets,
            approvals,
            rules,
            entries,
            configuration,
            analytics,
            audit,
            erasure,
            models,
            guards,
            runs,
            settings,
            revisions,
        )
        for router in (static, sign_in, account, *(page.router for page in pages)):
            self.include_router(router, prefix=PREFIX)

    async def run(self, scope: MutableMapping[str, Any], receive: Receive) -> Response:
        """Return the response to a request instead of sending it."""
        return await collected(self, scope, receive)


@static.get("/static/{name}")
async def serve_file(name: str) -> HTTPResponse:
    """Return a script or style sheet, which browsers may cache for an hour."""
    found = {
        each.name: each for each in files("toolbus_ingress.console").joinpath("static").iterdir()
    }
    media_type = _MEDIA_TYPES.get(name.rpartition(".")[2])
    if name not in found or media_type is None:
        raise HTTPException(404)
    headers = {"cache-control": "public, max-age=3600", "x-content-type-options": "nosniff"}
    return HTTPResponse(found[name].read_bytes(), media_type=media_type, headers=headers)


async def _sign_in_needed(request: Request, _: Exception) -> HTTPResponse:
    console: Any = request.app
    if request.headers.get("hx-request"):  # a part of a page: have the browser load the whole page
        return HTTPResponse(status_code=401, headers={"hx-redirect": f"{PREFIX}/sign-in"})
    return redirect(f"{PREFIX}/sign-in", console.cookie.end())


async def _foreign_form(_request: Request, _: Exception) -> HTTPResponse:
    return _message(403, "Nothing was changed", _FOREIGN)


async def _problem(_request: Request, error: Exception) -> HTTPResponse:
    assert isinstance(error, ProblemError)  # noqa: S101 - for the type checker
    return _message(error.status, "This did not work", f"{error.detail} {error.fix}")


async def _failure(_request: Request, error: Exception) -> HTTPResponse:
    assert isinstance(error, ToolbusError)  # noqa: S101 - for the type checker
    return _message(503 if error.retryable else 400, "This did not work", error.reason)


async def _rejection(_request: Request, error: Exception) -> HTTPResponse:
    assert isinstance(error, RejectedRequestError)  # noqa: S101 - for the type checker
    return _message(error.response.status, "The request was rejected", "Send less, or reload.")


async def _http_error(_request: Request, error: Exception) -> HTTPResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - for the type checker
    if error.status_code == 404:  # noqa: PLR2004
        return _message(404, "Page not found", "The navigation of the console lists every page.")
    return _message(error.status_code, "This did not work", str(error.detail))


def _message(status: int, title: str, text: str) -> HTTPResponse:
    return render("message.html", status, title=title, message=text)
