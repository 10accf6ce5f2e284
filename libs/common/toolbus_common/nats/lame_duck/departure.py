"""Departure of a client from a server that announces its end (lame duck mode) or is cut off."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import sample
from typing import Any
from urllib.parse import ParseResult, urlparse

from nats.errors import Error as NatsError

from toolbus_common.concurrency import end, in_time
from toolbus_common.nats.lame_duck.isolation import is_isolated
from toolbus_common.nats.lame_duck.movable_client import MovableClient

log = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
LOOK_SECONDS = 1.0  # between two checks of the server, and between two attempts to leave it
LOOKS = 2  # consecutive failed checks after which the server is left
ATTEMPTS = 8  # to leave a server that announces its end
# Seconds for the last messages of a server that announces its end, and of one that is cut off.
PATIENCE, SHORT_PATIENCE = 5.0, 1.0


class Departure:
    """Moves `client` to another of its `servers`, with a connection of the same `identity`.

    Without another server, the client reconnects when the server has ended.
    """

    def __init__(
        self,
        client: MovableClient,
        make: Callable[[], MovableClient],
        servers: Sequence[str],
        identity: Mapping[str, Any],
    ) -> None:
        self._client = client
        self._make = make
        self._servers = servers
        self._identity = identity
        self._moving: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Start to check the server, and leave it if it is cut off from the others."""
        if len(self._servers) > 1:
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def begin(self) -> None:
        """Leave the server in a task: the client reads no message while its callback runs."""
        if self._moving is None or self._moving.done():
            self._moving = asyncio.get_running_loop().create_task(self._leave(ATTEMPTS, PATIENCE))

    async def close(self) -> None:
        """End both tasks."""
        await end(*(each for each in (self._watching, self._moving) if each is not None))

    async def _watch(self) -> None:
        failed = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            is_moving = self._moving is not None and not self._moving.done()
            if is_moving or not self._client.is_connected:
                failed = 0
                continue
            failed = failed + 1 if await is_isolated(self._client) else 0
            if failed >= LOOKS:  # repeated until another server is not cut off
                await self._leave(1, SHORT_PATIENCE)

    async def _leave(self, attempts: int, patience: float) -> None:
        for _ in range(attempts):
            current = self._client.connected_url
            others = [each for each in self._servers if not _is_same(each, current)]
            for server in sample(others, len(others)):
                if await self._moved_to(server, patience):
                    log.info("bus.moved")
                    return
            await asyncio.sleep(LOOK_SECONDS)
        if attempts > 1:
            log.warning("bus.not_moved")

    async def _moved_to(self, server: str, patience: float) -> bool:
        """Move to a server, unless it cannot be reached or is cut off itself."""
        other = self._make()
        try:
            opening = other.connect([server], **self._identity, allow_reconnect=False)
            await in_time(opening, CONNECT_SECONDS)
            if not await is_isolated(other):
                return await self._client.move(other, patience)
        except (OSError, NatsError, TimeoutError) as error:
            log.debug("bus.server_not_reached", extra={"reason": str(error)})
        with suppress(OSError, NatsError):  # a connection that has failed may not close either
            await other.close()
        return False


def _is_same(url: str, current: ParseResult | None) -> bool:
    """Return whether a configured URL is the one that the client is connected to."""
    parsed = urlparse(url if "://" in url else f"nats://{url}")
    return current is not None and (parsed.hostname, parsed.port or 4222) == (
        current.hostname,
        current.port or 4222,
    )
