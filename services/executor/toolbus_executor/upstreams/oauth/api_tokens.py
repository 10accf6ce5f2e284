"""APIs whose tools come of a description: one connection for all, each call with its own token."""

from collections.abc import Collection
from typing import Any, Protocol

from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.upstreams.base import Described, Upstream
from toolbus_executor.upstreams.call_channel import Caller


class TakesTokens(Upstream, Protocol):
    """An API that is called with whichever token a call has."""

    async def call_as(self, bearer: Bearer | None, call: CallAdmitted, seconds: float) -> bytes:
        """Make the request of a call, with this token."""
        ...

    async def probe(self) -> None:
        """Ask whether the server is there."""
        ...


class TokenView:
    """An API as one user's token opens it: what it offers is known of the whole."""

    asks = False

    def __init__(self, whole: TakesTokens, bearer: Bearer) -> None:
        self._whole = whole
        self._bearer = bearer
        self.left_out: dict[str, str] = {}

    async def open(self) -> Described:
        """There is nothing to open."""
        return Described("", "")

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """What the whole lists."""
        return await self._whole.list_page(method, cursor)

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """The whole takes note of the tools."""

    async def call(self, call: CallAdmitted, seconds: float, _caller: Caller) -> bytes:
        """Make the request of a call, with this token."""
        return await self._whole.call_as(self._bearer, call, seconds)

    async def probe(self) -> None:
        """The whole is probed."""

    async def watch(self, uris: frozenset[str]) -> None:
        """There is nothing to watch."""

    async def follow(self, tasks: frozenset[str]) -> None:
        """There is nothing to follow."""

    async def wait_lost(self) -> str:
        """It ends with the whole."""
        return await self._whole.wait_lost()

    async def close(self) -> None:
        """There is nothing to close."""
