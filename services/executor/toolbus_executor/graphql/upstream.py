"""A GraphQL API as an upstream: read by introspection, called with POST on one address."""

import asyncio
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import msgspec

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted, Offered
from toolbus_common.declared import Server
from toolbus_common.errors import InvalidArgumentsError, UpstreamDeadError, UpstreamFaultError
from toolbus_common.openapi import BINDING
from toolbus_executor.caller import Caller
from toolbus_executor.graphql.answering import refused, result_of
from toolbus_executor.graphql.operations import Operation, operations_in
from toolbus_executor.graphql.selecting import SelectionError
from toolbus_executor.graphql.types import INTROSPECTION, SchemaError, types_in
from toolbus_executor.http1 import DEFAULT_SECONDS, Head
from toolbus_executor.http_transport import Transport
from toolbus_executor.openapi.securing import Credentials
from toolbus_executor.openapi.sending import bytes_of
from toolbus_executor.toolsonly import ToolsOnly, changed_since, no_such_method
from toolbus_executor.upstream import Described, News
from toolbus_executor.way import Way

_DEAD = (502, 503, 504)
_REDIRECTIONS = range(300, 400)
_HEADERS = (
    ("Content-Type", "application/json"),
    ("Accept", "application/graphql-response+json, application/json;q=0.9"),
)


class GraphQLUpstream(ToolsOnly):
    """One API. Its schema is read anew every `refresh` seconds."""

    def __init__(self, declared: Server, headers: dict[str, str], news: News, way: Way) -> None:
        super().__init__()
        self._declared = declared
        self._news = news
        target = urlsplit(declared.graphql)
        self._path = f"{target.path or '/'}?{target.query}" if target.query else target.path or "/"
        self._transport = Transport(declared.graphql, headers, way)
        self._credentials = Credentials({}, {}, headers)
        self._operations: dict[str, Operation] = {}
        self._listed: dict[str, str] = {}  # the binding of each tool as it was listed
        self._fresh = False  # read, and not listed yet
        self._relisting = asyncio.Lock()

    async def open(self) -> Described:
        """Read the schema."""
        await self._read()
        self._fresh = True
        return Described("graphql", "", "", {"tools": {}})

    async def list_page(self, method: str, _cursor: str | None) -> dict[str, Any]:
        """Every tool, of the schema as it is now."""
        if method != "tools/list":
            raise no_such_method()
        if not self._fresh:
            await self._read()
        self._fresh = False
        tools = [each.definition for each in self._operations.values()]
        return {"tools": tools, "ttlMs": int(self._declared.refresh * 1000)}

    def learn(self, tools: Collection[Offered]) -> None:
        """Take note of what the tools stood for when they were listed, here or elsewhere."""
        self._listed = {each.name: str(_meta(each).get(BINDING, "")) for each in tools}

    async def call(self, call: CallAdmitted, seconds: float, _caller: Caller) -> bytes:
        """Make the request of an operation; its answer as a tool's result."""
        if call.method != TOOLS_CALL:
            raise no_such_method()
        async with asyncio.timeout(seconds):
            operation = await self._operation(call)
            try:
                body = operation.request(msgspec.json.decode(call.arguments, type=dict))
            except SelectionError as error:
                raise InvalidArgumentsError(f"Invalid arguments: {error}.", sent=False) from error
            head, told = await self._ask(body, None)
        if head.status in _REDIRECTIONS:
            return refused(f"The API answered HTTP {head.status}, which leads elsewhere.")
        return result_of(head.status, self._credentials.struck(told), operation.field.name)

    async def close(self) -> None:
        """Leave."""
        self.lose("closed")
        self._transport.close()

    async def _read(self) -> None:
        """Introspect, and take the schema over as a whole, or keep what was before."""
        head, body = await self._ask({"query": INTROSPECTION}, DEFAULT_SECONDS)
        if head.status in _REDIRECTIONS:
            raise UpstreamFaultError("The upstream has moved; name its new address with graphql.")
        declared = self._declared
        try:
            # Large schemas take seconds: other servers' calls go on meanwhile.
            types = await asyncio.to_thread(types_in, body)
            found = await asyncio.to_thread(
                operations_in, types, declared.operations, declared.graphql
            )
        except (SchemaError, RecursionError) as error:
            raise UpstreamFaultError(
                f"The upstream's schema cannot be used (HTTP {head.status}): {error}."
            ) from error
        self._operations, self.left_out = found

    async def _operation(self, call: CallAdmitted) -> Operation:
        """What a tool stands for; read anew where that is not what was listed."""
        if self._as_listed(call.tool) is None:
            async with self._relisting:
                if self._as_listed(call.tool) is None:
                    await self._news.relist(call)
        operation = self._as_listed(call.tool)
        if operation is None:
            raise changed_since()
        return operation

    def _as_listed(self, tool: str) -> Operation | None:
        found = self._operations.get(tool)
        if found is None or self._listed.get(tool, found.binding) != found.binding:
            return None
        return found

    async def _ask(self, body: dict[str, Any], seconds: float | None) -> tuple[Head, bytes]:
        request = bytes_of(
            "POST", self._path, self._transport.common, _HEADERS, msgspec.json.encode(body)
        )
        head, told = await self._transport.ask(request, None, seconds)
        if head.status in _DEAD:
            raise UpstreamDeadError(f"The upstream answered HTTP {head.status}.")
        return head, told


def _meta(tool: Offered) -> dict[str, Any]:
    meta = tool.definition.get("_meta")
    return meta if isinstance(meta, dict) else {}
