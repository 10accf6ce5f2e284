"""Proxy the authorization server's paths: requests go to the oauth service over the bus."""

import asyncio
from dataclasses import dataclass
from typing import Any

from toolbus_common.contracts import PageReply, PageRequest
from toolbus_common.errors import OverloadedError, ToolbusError
from toolbus_common.http_server.body import Receive
from toolbus_common.web import html
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.html_response import page
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import Headers, check_content_length, read_request_body
from toolbus_ingress.mcp.endpoint import Endpoint

DOCUMENTS = ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")
PREFIX = "/oauth/"
LARGEST_BODY = 64 * 1024
SECONDS = 20.0
MAX_CONCURRENT = 128
_FORWARDED_HEADERS = (
    b"accept", b"authorization", b"content-type", b"cookie", b"dpop", b"origin", b"sec-fetch-site",
)  # fmt: skip


@dataclass(slots=True)
class OAuthProxy:
    """`/oauth/…` and the metadata documents of the authorization server.

    These pages need no credential, so they have their own limit: at most `MAX_CONCURRENT` requests
    run, and the capacity for calls is not affected.
    """

    endpoint: Endpoint
    _in_progress: int = 0

    async def answer(self, scope: dict[str, Any], receive: Receive) -> Response | None:
        """Return the response to a request; None for any other path, or if sign-in is disabled."""
        path: str = scope["path"]
        if not (path in DOCUMENTS or path.startswith(PREFIX)) or not self._enabled:
            return None
        if self._in_progress >= MAX_CONCURRENT:
            return jsonrpc.failure(
                OverloadedError("Too many sign-in pages are in progress. Retry in a moment.")
            )
        self._in_progress += 1
        try:
            return await self.endpoint.run_limited(scope, self._forward(scope, path, receive))
        finally:
            self._in_progress -= 1

    @property
    def _enabled(self) -> bool:
        """Whether people sign in here, or connect their own accounts at servers."""
        protected_resource = self.endpoint.protected_resource
        servers = protected_resource.directory.now.configuration.servers
        return protected_resource.enabled or any(
            server.oauth is not None for server in servers.values()
        )

    async def _forward(self, scope: dict[str, Any], path: str, receive: Receive) -> Response:
        headers = self.endpoint.guard.headers(scope)
        check_content_length(headers, LARGEST_BODY)
        body = await read_request_body(receive, LARGEST_BODY)
        request = PageRequest(
            method=scope["method"],
            path=path,
            query=scope["query_string"].decode("latin-1"),
            headers={
                name.decode(): headers[name].decode("latin-1")
                for name in _FORWARDED_HEADERS
                if name in headers
            },
            body=body,
        )
        try:
            reply = await self.endpoint.service.requests.request(request, PageReply, SECONDS)
        except ToolbusError as error:
            if b"text/html" in headers.get(b"accept", b""):
                await asyncio.to_thread(html.load)
            return _error_response(error, headers)
        return Response(
            reply.status,
            reply.body,
            tuple((name.encode(), value.encode("latin-1")) for name, value in reply.headers),
            reply.rejected,
        )


def _error_response(error: ToolbusError, headers: Headers) -> Response:
    """Return an HTML page to browsers, and JSON to programs."""
    response = jsonrpc.failure(error)
    if b"text/html" not in headers.get(b"accept", b""):
        return response
    return page(
        response.status,
        "toolbus_common.web/message.html",
        error.reason,
        title="Temporarily unavailable",
        message="Wait a moment, then reload this page.",
    )
