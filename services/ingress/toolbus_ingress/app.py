"""The ASGI application: paths to endpoints, one answer per request, never a stack trace."""

import asyncio
import logging
import re
from typing import Any

from toolbus_common.errors import OutcomeUnknownError, ToolbusError
from toolbus_common.http_server.body import Receive, announces_body, receive_nothing
from toolbus_common.messaging.access_rejections import RejectionCounter
from toolbus_ingress import cors
from toolbus_ingress.admin_api import handler as administration
from toolbus_ingress.admin_api import responses as answers
from toolbus_ingress.approvals.handler import Approvals
from toolbus_ingress.auth import rejected_credentials
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import RefusedRequestError, whole_body
from toolbus_ingress.http_sse import OldTransport
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.oauth_proxy import Pages
from toolbus_ingress.sessions.sse_writer import Send
from toolbus_ingress.tools_api.handler import PATHS, Explicit, reworded

log = logging.getLogger(__name__)

_SERVER_PATH = re.compile(r"/mcp/([^/]+)")
_OLD_STREAM = re.compile(r"/sse(?:/([^/]+))?")
_OLD_POST = re.compile(r"/sse(?:/([^/]+))?/messages")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})  # whoever answers these reads their body
LARGEST_UNREAD = 64 * 1024  # of a body that says nothing, and must be whole all the same
_ENDED = (
    "The gateway ended before the answer was there; the call may or may not have been executed. "
    "Look it up in the audit before repeating it."
)
_ALIVE = Response(200, b"")
_NOT_FOUND = jsonrpc.error(
    404,
    jsonrpc.INVALID_REQUEST,
    "Nothing is served here; try /mcp or /mcp/<server>.",
)


class App:
    """Routes on `scope["path"]`, the path the server parsed, never on a URL built from headers."""

    def __init__(
        self,
        endpoint: Endpoint,
        approvals: Approvals,
        rejections: RejectionCounter,
        scripts: frozenset[str] = frozenset(),
    ) -> None:
        self._rejections = rejections
        self._scripts = scripts  # origins of scripts in browsers that may read answers
        self._endpoint = endpoint
        self._approvals = approvals
        self._administration = administration.Administration(endpoint)
        self._pages = Pages(endpoint)
        self._old = OldTransport(endpoint)
        self._explicit = Explicit(endpoint)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        scripted = self._scripts and cors.origin_of(scope, self._scripts)
        if scripted:
            send = cors.readable(send, scripted)
        try:
            self._endpoint.guard.headers(scope)
            response = cors.preflight(scope) if scripted else None
            if response is None:
                response = await self._route(scope, receive, send)
        except RefusedRequestError as refusal:
            response = _refused(refusal, scope["path"])
        except asyncio.CancelledError:  # at the end of a drain
            response = jsonrpc.failure(OutcomeUnknownError(_ENDED))
        except Exception:
            log.exception("request.failed")
            response = jsonrpc.failure(
                ToolbusError("Something failed inside; the log of ingress says what.")
            )
        if response is not None:
            rejected_credentials.note(self._rejections, scope, response)
            await _send(response, send)

    async def _route(self, scope: dict[str, Any], receive: Receive, send: Send) -> Response | None:
        path: str = scope["path"]
        if scope["method"] not in _WITH_BODY and announces_body(scope):
            await whole_body(receive, LARGEST_UNREAD)
            receive = receive_nothing
        if path == "/mcp":
            return await self._endpoint.answer(scope, "", receive, send)
        if path == "/healthz":
            return _ALIVE
        if path in PATHS:
            return await self._explicit.answer(scope, receive, send)
        match = _SERVER_PATH.fullmatch(path)
        if match is not None:
            return await self._endpoint.answer(scope, match[1], receive, send)
        posts = scope["method"] == "POST"
        match = (_OLD_POST if posts else _OLD_STREAM).fullmatch(path)
        if match is not None:
            return await self._old.answer(scope, match[1] or "", receive, send)
        return (
            await self._approvals.answer(scope, receive)
            or await self._administration.answer(scope, receive)
            or self._endpoint.identity.told(scope)
            or await self._pages.answer(scope, receive)
            or _NOT_FOUND
        )


def _refused(refusal: RefusedRequestError, path: str) -> Response:
    """What the guard refused, in the form the path answers in."""
    if administration.serves(path):
        return answers.refused(refusal)
    return reworded(refusal.response) if path in PATHS else refusal.response


async def _send(response: Response, send: Send) -> None:
    headers = [(b"content-length", str(len(response.body)).encode()), *response.headers]
    if response.body and not any(name == b"content-type" for name, _ in response.headers):
        headers.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
