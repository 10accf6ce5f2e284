"""Base of upstreams for APIs. Their tools come from a description of the API."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, Generic, Protocol, TypeVar

from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_common.errors import UpstreamRefusedError
from toolbus_common.openapi import BINDING
from toolbus_executor.upstreams.base import Described, UpstreamCallbacks
from toolbus_executor.upstreams.call_channel import METHOD_NOT_FOUND
from toolbus_executor.upstreams.subscriptions import (
    refuse_unless_following,
    refuse_unless_subscribable,
)


class Operation(Protocol):
    """The operation of a tool. `binding` is its digest, and a part of the tool's definition."""

    @property
    def definition(self) -> dict[str, Any]:
        """The tool's definition in the list."""

    @property
    def binding(self) -> str:
        """A digest that changes if the operation of the tool changes."""


T = TypeVar("T", bound=Operation)


class ApiUpstream(ABC, Generic[T]):
    """Base class of API upstreams. The description is read again every `refresh` seconds.

    A call executes the operation that this or another replica listed under the tool's name. If the
    description has changed since then, the tools are listed again before the call.
    """

    sends_requests = False  # APIs send no requests during a call

    def __init__(self, news: UpstreamCallbacks, refresh: float) -> None:
        self.left_out: dict[str, str] = {}
        self._news = news
        self._refresh = refresh
        self._operations: Mapping[str, T] = {}  # operations of the latest description, by tool
        self._fresh = False  # whether the description was read but not listed yet
        self._listed: dict[str, str] = {}  # listed bindings, by tool
        self._relisting = asyncio.Lock()
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @abstractmethod
    async def _read(self) -> None:
        """Read the description, and replace all operations. An error leaves them unchanged."""

    async def list_page(self, method: str, _cursor: str | None) -> dict[str, Any]:
        """Return all tools of the current description as one page."""
        if method != "tools/list":
            raise no_such_method()
        if not self._fresh:
            await self._read()
        self._fresh = False
        tools = [each.definition for each in self._operations.values()]
        return {"tools": tools, "ttlMs": int(self._refresh * 1000)}

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Store the bindings of the tools that this or another replica listed."""
        self._listed = {each.name: _binding(each.definition) for each in tools}

    async def _operation(self, call: CallAdmitted) -> T:
        """Return the operation of a tool.

        If the operation differs from the listed operation, list the tools first.

        Raises:
            UpstreamRefusedError: the tool has changed or no longer exists.

        """
        operation = self._as_listed(call.tool)
        if operation is None:
            async with self._relisting:
                if self._as_listed(call.tool) is None:
                    await self._news.relist(call)
            operation = self._as_listed(call.tool)
        if operation is None:
            raise changed_since()
        return operation

    def _as_listed(self, tool: str) -> T | None:
        found = self._operations.get(tool)
        if found is None or self._listed.get(tool, found.binding) != found.binding:
            return None
        return found

    async def watch(self, uris: frozenset[str]) -> None:
        """Reject subscriptions to resources, because these servers have no resources."""
        if uris:
            refuse_unless_subscribable(Described("", ""))

    async def follow(self, tasks: frozenset[str]) -> None:
        """Reject subscriptions to tasks, because these servers have no tasks."""
        if tasks:
            refuse_unless_following(Described("", ""))

    async def wait_lost(self) -> str:
        """Wait until the server must be reconnected, and return the reason."""
        return await asyncio.shield(self._lost)

    def lose(self, why: str) -> None:
        """Require that the server is reconnected, for this reason."""
        if not self._lost.done():
            self._lost.set_result(why)


def _binding(definition: dict[str, Any]) -> str:
    meta = definition.get("_meta")
    return str(meta.get(BINDING, "")) if isinstance(meta, dict) else ""


def no_such_method() -> UpstreamRefusedError:
    """Return the error for methods that do not concern tools."""
    return UpstreamRefusedError(
        "The server offers only tools.", upstream_code=METHOD_NOT_FOUND, sent=False
    )


def changed_since() -> UpstreamRefusedError:
    """Return the error for a tool whose operation differs from the listed operation."""
    return UpstreamRefusedError(
        "The tool has changed; list the tools again.", upstream_code=-32602, sent=False
    )
