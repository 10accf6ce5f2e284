"""Upstream for a GraphQL API. Its schema is read by introspection; calls are POST requests."""

import asyncio
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from toolbus_common.config import Server
from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_common.errors import InvalidArgumentsError, UpstreamDeadError, UpstreamInvalidError
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.resilience.failure_log import GarbageError
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.transport.http1 import DEFAULT_SECONDS, Head
from toolbus_executor.upstreams.api_upstream import ApiUpstream, no_such_method
from toolbus_executor.upstreams.base import Described, UpstreamCallbacks
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.graphql.introspection import INTROSPECTION, SchemaError, types_in
from toolbus_executor.upstreams.graphql.operations import Operation, operations_in
from toolbus_executor.upstreams.graphql.responses import refused, result_of
from toolbus_executor.upstreams.graphql.selection import SelectionError
from toolbus_executor.upstreams.mcp.http_transport import Transport
from toolbus_executor.upstreams.openapi.http import bytes_of
from toolbus_executor.upstreams.openapi.security import Credentials

_DEAD = (502, 503, 504)
_OK, _SERVER_ERROR = 200, 500
_REDIRECTIONS = range(300, 400)
_HEADERS = (
    ("Content-Type", "application/json"),
    ("Accept", "application/graphql-response+json, application/json;q=0.9"),
)


class GraphQLUpstream(ApiUpstream[Operation]):
    """A GraphQL API. Its schema is read again every `refresh` seconds."""

    def __init__(
        self,
        declared: Server,
        headers: dict[str, str],
        news: UpstreamCallbacks,
        way: Dialer,
        bearer: Bearer | None = None,
    ) -> None:
        super().__init__(news, declared.refresh)
        self._declared = declared
        target = urlsplit(declared.graphql)
        self._path = f"{target.path or '/'}?{target.query}" if target.query else target.path or "/"
        self._transport = Transport(declared.graphql, headers, way)
        self._transport.bearer = bearer
        self._credentials = Credentials({}, {}, headers)

    async def open(self) -> Described:
        """Read the schema."""
        await self._read()
        self._fresh = True
        return Described("graphql", "", "", {"tools": {}})

    async def call(self, call: CallAdmitted, seconds: float, _caller: Caller) -> bytes:
        """Execute an operation, and return its response as a tool result."""
        return await self.call_as(self._transport.bearer, call, seconds)

    async def call_as(
        self,
        bearer: Bearer | None,
        call: CallAdmitted,
        seconds: float,
        _caller: Caller | None = None,
    ) -> bytes:
        """Execute an operation with this token, and return its response as a tool result."""
        if call.method != TOOLS_CALL:
            raise no_such_method()
        async with asyncio.timeout(seconds):
            operation = await self._operation(call)
            try:
                query = operation.request(msgspec.json.decode(call.arguments, type=dict))
            except SelectionError as error:
                raise InvalidArgumentsError(f"Invalid arguments: {error}.", sent=False) from error
            head, body = await self._ask(query, None, self._transport.headers_of(call), bearer)
        if head.status in _REDIRECTIONS:
            return refused(
                f"The API returned HTTP {head.status}, a redirect; it was not followed. Configure "
                "the current URL of the API."
            )
        body = self._credentials.struck(body)
        body = bearer.struck(body) if bearer is not None else body
        return result_of(head.status, body, operation.field.name)

    async def probe(self) -> None:
        """Send a query that every schema supports and that costs little."""
        head, body = await self._ask({"query": "{__typename}"}, DEFAULT_SECONDS)
        if head.status >= _SERVER_ERROR:
            raise UpstreamDeadError(f"The upstream returned HTTP {head.status}; check its log.")
        if head.status == _OK and not body.lstrip().startswith(b"{"):
            raise GarbageError("The upstream's response to a probe is not GraphQL; check the URL.")

    async def close(self) -> None:
        """Close the connections."""
        self.lose("closed")
        self._transport.close()

    async def _read(self) -> None:
        """Read the schema, and replace all operations. An error leaves them unchanged."""
        head, body = await self._ask({"query": INTROSPECTION}, DEFAULT_SECONDS)
        if head.status in _REDIRECTIONS:
            raise UpstreamInvalidError(
                "The upstream redirects to another address; set that address with 'graphql'."
            )
        declared = self._declared
        try:
            # Large schemas take seconds, so they are parsed in a thread.
            types = await asyncio.to_thread(types_in, body)
            found = await asyncio.to_thread(
                operations_in, types, declared.operations, declared.graphql
            )
        except (SchemaError, RecursionError) as error:
            raise UpstreamInvalidError(
                f"The upstream's schema cannot be used (HTTP {head.status}): {error}."
            ) from error
        self._operations, self.left_out = found

    async def _ask(
        self,
        body: dict[str, Any],
        seconds: float | None,
        more: Iterable[tuple[str, str]] = (),
        bearer: Bearer | None = None,
    ) -> tuple[Head, bytes]:
        headers = (*_HEADERS, *more)
        request = bytes_of(
            "POST", self._path, self._transport.common, headers, msgspec.json.encode(body)
        )
        head, response = await self._transport.request(request, None, seconds, bearer=bearer)
        if head.status in _DEAD:
            raise UpstreamDeadError(f"The upstream returned HTTP {head.status}; check its log.")
        return head, response
