"""What all upstreams share whose tools are made of a description: no questions, no news, no end."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, Generic, Protocol, TypeVar

from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_common.errors import UpstreamRefusedError
from toolbus_common.openapi import BINDING
from toolbus_executor.upstreams.base import Described, News
from toolbus_executor.upstreams.call_channel import METHOD_NOT_FOUND
from toolbus_executor.upstreams.subscriptions import (
    refuse_unless_following,
    refuse_unless_subscribable,
)


class Operation(Protocol):
    """What a tool stands for: `binding` is a digest of that, and part of its definition."""

    @property
    def definition(self) -> dict[str, Any]:
        """The tool, as it is listed."""

    @property
    def binding(self) -> str:
        """What the tool stands for, in short."""


T = TypeVar("T", bound=Operation)


class ToolsOnly(ABC, Generic[T]):
    """The part of an `Upstream` that is the same for all of them; `refresh` is in seconds.

    A call is of the operation that was listed under its name, here or by another replica: what
    was described anew since, and stands for something else, is listed before it is called.
    """

    asks = False  # in the middle of a call nobody asks back

    def __init__(self, news: News, refresh: float) -> None:
        self.left_out: dict[str, str] = {}
        self._news = news
        self._refresh = refresh
        self._operations: Mapping[str, T] = {}  # as described last
        self._fresh = False  # described, and not listed yet
        self._listed: dict[str, str] = {}  # the binding of each tool as it was listed
        self._relisting = asyncio.Lock()
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @abstractmethod
    async def _read(self) -> None:
        """Read the description, and take it over as a whole or keep what was before."""

    async def list_page(self, method: str, _cursor: str | None) -> dict[str, Any]:
        """Every tool, as it is described now."""
        if method != "tools/list":
            raise no_such_method()
        if not self._fresh:
            await self._read()
        self._fresh = False
        tools = [each.definition for each in self._operations.values()]
        return {"tools": tools, "ttlMs": int(self._refresh * 1000)}

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Take note of what the tools stood for when they were listed, here or elsewhere."""
        self._listed = {each.name: _binding(each.definition) for each in tools}

    async def _operation(self, call: CallAdmitted) -> T:
        """What a tool stands for; described anew where that is not what was listed.

        Raises:
            UpstreamRefusedError: it stands for nothing any more.

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
        """There are no resources."""
        if uris:
            refuse_unless_subscribable(Described("", ""))

    async def follow(self, tasks: frozenset[str]) -> None:
        """There are no tasks."""
        if tasks:
            refuse_unless_following(Described("", ""))

    async def wait_lost(self) -> str:
        """Wait for the end."""
        return await asyncio.shield(self._lost)

    def lose(self, why: str) -> None:
        """The connection is of no more use."""
        if not self._lost.done():
            self._lost.set_result(why)


def _binding(definition: dict[str, Any]) -> str:
    meta = definition.get("_meta")
    return str(meta.get(BINDING, "")) if isinstance(meta, dict) else ""


def no_such_method() -> UpstreamRefusedError:
    """What anybody is told who asks for something else."""
    return UpstreamRefusedError(
        "The server offers tools and nothing else.", upstream_code=METHOD_NOT_FOUND, sent=False
    )


def changed_since() -> UpstreamRefusedError:
    """What a call of a tool is told that does not stand any more for what was listed."""
    return UpstreamRefusedError(
        "The tool has changed; list the tools again.", upstream_code=-32602, sent=False
    )
