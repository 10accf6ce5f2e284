"""API upstreams with tokens per user: one connection for all users, and a token per call."""

from collections.abc import Collection
from typing import Any, Protocol

from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.upstreams.base import Described, Upstream
from toolbus_executor.upstreams.call_channel import Caller


class TakesTokens(Upstream, Protocol):
    """An API upstream that can use another token for each call."""

    async def call_as(
        self, bearer: Bearer | None, call: CallAdmitted, seconds: float, caller: Caller
    ) -> bytes:
        """Send a call with this token and return its result."""
        ...

    async def probe(self) -> None:
        """Check that the server responds."""
        ...


class TokenView:
    """View of an API for one user. Calls use the user's token; the tools are those of the API."""

    sends_requests = False

    def __init__(self, whole: TakesTokens, bearer: Bearer) -> None:
        self._whole = whole
        self._bearer = bearer
        self.left_out: dict[str, str] = {}

    async def open(self) -> Described:
        """Do nothing, because the API is already open."""
        return Described("", "")

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list of the API."""
        return await self._whole.list_page(method, cursor)

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Do nothing, because the API itself stores the definitions."""

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Send a call with the user's token and return its result."""
        return await self._whole.call_as(self._bearer, call, seconds, caller)

    async def probe(self) -> None:
        """Do nothing, because the API itself is probed."""

    async def watch(self, uris: frozenset[str]) -> None:
        """Do nothing, because an API has no resources."""

    async def follow(self, tasks: frozenset[str]) -> None:
        """Do nothing, because an API has no tasks."""

    async def wait_lost(self) -> str:
        """Wait until the API must be reconnected, and return the reason."""
        return await self._whole.wait_lost()

    async def close(self) -> None:
        """Do nothing, because the API stays open."""
