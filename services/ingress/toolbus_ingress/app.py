"""The ASGI application: route a request by its path, and answer it exactly once."""

import asyncio
import logging
import re
from collections.abc import Awaitable
from typing import Any

from toolbus_common.errors import OutcomeUnknownError, ToolbusError
from toolbus_common.http_server.body import Receive, announces_body, receive_nothing
from toolbus_common.messaging.access_rejections import RejectionCounter
from toolbus_ingress import cors, rest_apis
from toolbus_ingress.a2a import api as a2a
from toolbus_ingress.a2a.api import A2aApi
from toolbus_ingress.approvals.page_handler import ApprovalPage
from toolbus_ingress.auth import rejected_credentials
from toolbus_ingress.console.session import SessionCookie
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import RejectedRequestError, read_request_body
from toolbus_ingress.http_sse import HttpSseTransport
from toolbus_ingress.live.feed import LiveFeed
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.models_api import errors as model_errors
from toolbus_ingress.models_api import handler as models_api
from toolbus_ingress.models_api.handler import ModelsApi
from toolbus_ingress.oauth_proxy import OAuthProxy
from toolbus_ingress.rest import problems
from toolbus_ingress.rest_apis import RestApis
from toolbus_ingress.sessions.sse_writer import Send

log = logging.getLogger(__name__)

_SERVER_PATH = re.compile(r"/mcp/([^/]+)")
_SSE_STREAM = re.compile(r"/sse(?:/([^/]+))?")
_SSE_POST = re.compile(r"/sse(?:/([^/]+))?/messages")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})  # methods whose handlers read the body
LARGEST_UNREAD = 64 * 1024  # bytes; the limit of a body that no handler reads
_SHUTDOWN = (
    "The gateway stopped before the call ended; the call may have been executed. "
    "Check the audit log before repeating it."
)
_ALIVE = Response(200, b"")
_JSON = (b"content-type", b"application/json")
_NOT_FOUND = jsonrpc.error(
    404,
    jsonrpc.INVALID_REQUEST,
    "Unknown path. Use /mcp or /mcp/<server>.",
)


class App:
    """ASGI application. It routes on `scope["path"]`, never on a URL built from headers.

    `browser_origins` are origins whose scripts may read responses (CORS).
    """

    def __init__(
        self,
        endpoint: Endpoint,
        approval_page: ApprovalPage,
        rejections: RejectionCounter,
        console_cookie: SessionCookie,
        browser_origins: frozenset[str] = frozenset(),
    ) -> None:
        self._rejections = rejections
        self._browser_origins = browser_origins
        self._endpoint = endpoint
        self._approval_page = approval_page
        self.live = LiveFeed(endpoint.service.bus)
        self._rest_apis = RestApis(endpoint, console_cookie, self.live)
        self._models_api = ModelsApi(endpoint)
        self._a2a = A2aApi(endpoint)
        self._oauth = OAuthProxy(endpoint)
        self._http_sse = HttpSseTransport(endpoint)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Send the response to one request. A failure becomes a response, never a stack trace."""
        if scope["type"] != "http":
            return
        origin = self._browser_origins and cors.allowed_origin(scope, self._browser_origins)
        if origin:
            send = cors.with_cors_headers(send, origin)
        try:
            self._endpoint.guard.headers(scope)
            response = cors.preflight(scope) if origin else None
            if response is None:
                if scope["method"] not in _WITH_BODY and announces_body(scope):
                    await read_request_body(receive, LARGEST_UNREAD)
                    receive = receive_nothing
                response = await self._route(scope, receive, send)
        except RejectedRequestError as rejection:
            response = _rejection_response(rejection, scope)
        except asyncio.CancelledError:  # at the end of a drain
            response = self._failure(OutcomeUnknownError(_SHUTDOWN), scope)
        except Exception:
            log.exception("request.failed")
            error = "Internal error. The log of the ingress service has the details."
            response = self._failure(ToolbusError(error), scope)
        if response is not None:
            if response.rejected or response.status >= jsonrpc.BAD_REQUEST:
                rejected_credentials.count(self._rejections, scope, response)
            await _send(response, send)

    def _route(
        self, scope: dict[str, Any], receive: Receive, send: Send
    ) -> Awaitable[Response | None]:
        """Return the answer of the handler of the path."""
        path: str = scope["path"]
        if path == "/mcp":
            return self._endpoint.answer(scope, "", receive, send)
        if rest_apis.serves(path):
            return self._rest_apis.answer(scope, receive, send)
        match = _SERVER_PATH.fullmatch(path)
        if match is not None:
            return self._endpoint.answer(scope, match[1], receive, send)
        if models_api.serves(path):
            return self._models_api.answer(scope, receive, send)
        match = (_SSE_POST if scope["method"] == "POST" else _SSE_STREAM).fullmatch(path)
        if match is not None:
            return self._http_sse.answer(scope, match[1] or "", receive, send)
        return self._serve_other(scope, receive, send)

    async def _serve_other(
        self, scope: dict[str, Any], receive: Receive, send: Send
    ) -> Response | None:
        """Answer requests for everything but MCP, the REST APIs and the models API."""
        if scope["path"] == "/healthz":
            return _ALIVE
        if a2a.serves(scope["path"]):
            return await self._a2a.answer(scope, receive, send)
        return (
            await self._approval_page.answer(scope, receive)
            or self._endpoint.protected_resource.metadata_response(scope)
            or await self._oauth.answer(scope, receive)
            or _NOT_FOUND
        )

    def _failure(self, error: ToolbusError, scope: dict[str, Any]) -> Response:
        """Return the response for an error, in the error format of the path."""
        if rest_apis.serves(scope["path"]):
            return self._rest_apis.failure(error, scope)
        is_of_models = models_api.serves(scope["path"])
        return self._models_api.failure(error, scope) if is_of_models else jsonrpc.failure(error)


def _rejection_response(rejection: RejectedRequestError, scope: dict[str, Any]) -> Response:
    """Return the guard's rejection in the error format of the path."""
    if rest_apis.serves(scope["path"]):
        return problems.rejection(rejection)
    if models_api.serves(scope["path"]):
        return model_errors.rejection(rejection, models_api.dialect_of(scope))
    return rejection.response


async def _send(response: Response, send: Send) -> None:
    headers = [(b"content-length", b"%d" % len(response.body)), *response.headers]
    if response.body and b"content-type" not in dict(response.headers):
        headers.append(_JSON)
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
