"""Departure of a client from a server that announces its end (lame duck mode)."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import ParseResult, urlparse

from nats.errors import Error as NatsError

from toolbus_common.concurrency import end, in_time
from toolbus_common.nats.lame_duck.movable_client import MovableClient

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0


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
        self._move: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Move in a task, because the client reads no message while its callback runs."""
        if self._move is None or self._move.done():
            self._move = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """End a move that has not ended."""
        if self._move is not None:
            await end(self._move)

    async def _run(self) -> None:
        current = self._client.connected_url
        others = [each for each in self._servers if not _is_same(each, current)]
        if not others:
            log.warning("bus.no_other_server")
            return
        other = self._make()
        try:
            opening = other.connect(others, **self._identity, allow_reconnect=False)
            await in_time(opening, CONNECT_SECONDS)
            moved = await self._client.move(other)
        except (OSError, NatsError, TimeoutError) as error:
            await other.close()
            log.warning("bus.not_moved", extra={"reason": str(error)})
        else:
            log.info("bus.moved", extra={"moved": moved})


def _is_same(url: str, current: ParseResult | None) -> bool:
    """Return whether a configured URL is the one that the client is connected to."""
    parsed = urlparse(url if "://" in url else f"nats://{url}")
    return current is not None and (parsed.hostname, parsed.port or 4222) == (
        current.hostname,
        current.port or 4222,
    )
