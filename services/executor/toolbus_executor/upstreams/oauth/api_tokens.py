"""API upstreams with per-user tokens: one connection for all, and a token for each call."""

from collections.abc import Collection
from typing import Any, Protocol

from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.upstreams.base import Described, Upstream
from toolbus_executor.upstreams.call_channel import Caller


class TakesTokens(Upstream, Protocol):
    """An API whose calls can each carry another token."""

    async def call_as(self, bearer: Bearer | None, call: CallAdmitted, seconds: float) -> bytes:
        """Send a call with this token."""
        ...

    async def probe(self) -> None:
        """Check that the server responds."""
        ...


class TokenView:
    """An API as called with one user's token; its tools are those of the whole API."""

    asks = False

    def __init__(self, whole: TakesTokens, bearer: Bearer) -> None:
        self._whole = whole
        self._bearer = bearer
        self.left_out: dict[str, str] = {}

    async def open(self) -> Described:
        """Do nothing: the API is open already."""
        return Described("", "")

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """Return a page of the API's list."""
        return await self._whole.list_page(method, cursor)

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Do nothing: the API itself stores the tools."""

    async def call(self, call: CallAdmitted, seconds: float, _caller: Caller) -> bytes:
        """Send a call with this user's token."""
        return await self._whole.call_as(self._bearer, call, seconds)

    async def probe(self) -> None:
        """Do nothing: the API itself is probed."""

    async def watch(self, uris: frozenset[str]) -> None:
        """Do nothing: an API has no resources."""

    async def follow(self, tasks: frozenset[str]) -> None:
        """Do nothing: an API has no tasks."""

    async def wait_lost(self) -> str:
        """Wait until the API's connection is unusable."""
        return await self._whole.wait_lost()

    async def close(self) -> None:
        """Do nothing: the API stays open."""
