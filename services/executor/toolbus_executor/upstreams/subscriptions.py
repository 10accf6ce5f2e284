"""Subscriptions to resources and tasks of a server. They expire unless they are renewed."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from toolbus_common.errors import OverloadedError, UpstreamRefusedError
from toolbus_executor.mcp_messages.client_capabilities import TASKS
from toolbus_executor.upstreams.base import Described
from toolbus_executor.upstreams.call_channel import METHOD_NOT_FOUND

LEASE_SECONDS = 600.0
MAX_WATCHED = 1000

Subscribe = Callable[[frozenset[str]], Awaitable[None]]

_CHANGE_FLAGS = {
    "tools": "toolsListChanged",
    "prompts": "promptsListChanged",
    "resources": "resourcesListChanged",
}


def listen_params(
    described: Described, watched: frozenset[str], followed: frozenset[str] = frozenset()
) -> dict[str, Any] | None:
    """Return the params of `subscriptions/listen`; None if there is nothing to subscribe to."""
    wanted: dict[str, Any] = {_CHANGE_FLAGS[name]: True for name in described.changing}
    if watched:
        wanted["resourceSubscriptions"] = sorted(watched)
    if followed:
        wanted["taskIds"] = sorted(followed)
    return {"notifications": wanted} if wanted else None


def refuse_unless_subscribable(described: Described) -> None:
    """Raise `UpstreamRefusedError` if the server does not support subscriptions to resources."""
    if not described.subscribable:
        raise UpstreamRefusedError(
            "The server does not offer subscriptions; read the resource again instead.",
            upstream_code=METHOD_NOT_FOUND,
            sent=False,
        )


def refuse_unless_following(described: Described) -> None:
    """Raise `UpstreamRefusedError` if the server does not support notifications about tasks."""
    extensions = described.capabilities.get("extensions")
    if described.family != "modern" or not isinstance(extensions, dict) or TASKS not in extensions:
        raise UpstreamRefusedError(
            "The server does not offer task notifications; poll 'tasks/get' instead.",
            upstream_code=METHOD_NOT_FOUND,
            sent=False,
        )


class Watched:
    """The subscriptions to resources or tasks of one server. `on_expired` is called on expiry."""

    def __init__(self, on_expired: Callable[[], None]) -> None:
        self._until: dict[str, float] = {}
        self._on_expired = on_expired
        self._timer: asyncio.TimerHandle | None = None

    async def subscribe(self, name: str, subscribe: Subscribe, seconds: float) -> bytes:
        """Subscribe to a name for `LEASE_SECONDS`. The subscriber must renew the subscription.

        Raises:
            OverloadedError: the server has too many subscriptions.
            TimeoutError: the server did not reply within `seconds`.

        """
        known = name in self.names
        if self.full and not known:
            raise OverloadedError("The upstream has too many subscriptions; retry later.")
        self.add(name)
        try:
            async with asyncio.timeout(seconds):
                await subscribe(self.names)
        except BaseException:
            if not known:
                self.drop(name)
            raise
        return b"{}"

    @property
    def names(self) -> frozenset[str]:
        """The names of all subscriptions."""
        return frozenset(self._until)

    @property
    def full(self) -> bool:
        """Whether the maximum number of subscriptions is reached."""
        return len(self._until) >= MAX_WATCHED

    def add(self, name: str) -> None:
        """Add or renew the subscription to a name."""
        self._until[name] = monotonic() + LEASE_SECONDS
        self._wait()

    def drop(self, name: str) -> None:
        """Remove the subscription to a name."""
        self._until.pop(name, None)

    def close(self) -> None:
        """Remove all subscriptions."""
        self._until.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        if self._timer is None and self._until:
            pause = max(0.0, min(self._until.values()) - monotonic())
            self._timer = asyncio.get_running_loop().call_later(pause, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = monotonic()
        gone = [name for name, until in self._until.items() if until <= now]
        for name in gone:
            del self._until[name]
        if gone:
            self._on_expired()
        self._wait()
