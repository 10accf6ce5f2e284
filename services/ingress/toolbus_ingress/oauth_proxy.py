"""Proxy the authorization server's paths: requests go to the oauth service over the bus."""

from dataclasses import dataclass
from typing import Any

from toolbus_common.contracts import PageReply, PageRequest
from toolbus_common.errors import OverloadedError, ToolbusError
from toolbus_common.http_server.body import Receive
from toolbus_common.web import html as webpage
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.html_response import page
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import Headers, announced, whole_body
from toolbus_ingress.mcp.endpoint import Endpoint

DOCUMENTS = ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")
PREFIX = "/oauth/"
LARGEST_BODY = 64 * 1024
SECONDS = 20.0
MOST_AT_ONCE = 128
_PASSED_ON = (
    b"accept", b"authorization", b"content-type", b"cookie", b"dpop", b"origin", b"sec-fetch-site",
)  # fmt: skip


@dataclass(slots=True)
class Pages:
    """`/oauth/…` and the documents that lead there: anybody may ask, so not at calls' expense."""

    endpoint: Endpoint
    _under_way: int = 0

    async def answer(self, scope: dict[str, Any], receive: Receive) -> Response | None:
        """The answer, or None where the path is not of these, or nobody may sign in."""
        path: str = scope["path"]
        if not (path in DOCUMENTS or path.startswith(PREFIX)) or not self._on:
            return None
        if self._under_way >= MOST_AT_ONCE:
            return jsonrpc.failure(OverloadedError("Too many pages are being made; retry."))
        self._under_way += 1
        try:
            return await self.endpoint.bounded(scope, self._passed_on(scope, path, receive))
        finally:
            self._under_way -= 1

    @property
    def _on(self) -> bool:
        """Whether people sign in here, or connect accounts of theirs to servers."""
        identity = self.endpoint.identity
        servers = identity.directory.now.declaration.servers
        return identity.on or any(each.oauth is not None for each in servers.values())

    async def _passed_on(self, scope: dict[str, Any], path: str, receive: Receive) -> Response:
        headers = self.endpoint.guard.headers(scope)
        announced(headers, LARGEST_BODY)
        body = await whole_body(receive, LARGEST_BODY)
        asked = PageRequest(
            method=scope["method"],
            path=path,
            query=scope["query_string"].decode("latin-1"),
            headers={
                name.decode(): headers[name].decode("latin-1")
                for name in _PASSED_ON
                if name in headers
            },
            body=body,
        )
        try:
            told = await self.endpoint.service.requests.ask(asked, PageReply, SECONDS)
        except ToolbusError as error:
            return _failed(error, headers)
        return Response(
            told.status,
            told.body,
            tuple((name.encode(), value.encode("latin-1")) for name, value in told.headers),
            told.rejected,
        )


def _failed(error: ToolbusError, headers: Headers) -> Response:
    """For programs as everywhere, for people as a page."""
    failed = jsonrpc.failure(error)
    if b"text/html" not in headers.get(b"accept", b""):
        return failed
    body = f"{webpage.refusal(error.reason)}<p>Try again in a moment: reload this page.</p>"
    return page(failed.status, "Not now", body)
