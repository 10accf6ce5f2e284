"""Waiting until the server of the bus knows what it was told, however long that takes."""

import asyncio
import logging
from collections.abc import Callable

from nats.aio.client import Client

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.2
NEVER = 86_400  # seconds


async def settled(client: Client, on_lost: list[Callable[[], None]]) -> None:
    """Return once the server knows every subscription made so far.

    When the connection is lost the client tells them again, and the server is asked again.
    """
    while not (await _answered(client, on_lost) or client.is_closed):
        log.info("bus.not_settled")
        await asyncio.sleep(PAUSE_SECONDS)


async def _answered(client: Client, on_lost: list[Callable[[], None]]) -> bool:
    """Whether the server answered a ping before the connection was lost.

    Patience ends with the connection alone: the client's own would cancel what the answer is for,
    and an answer that comes to something cancelled ends the client's reading.
    """
    if not client.is_connected:
        return False
    lost = asyncio.Event()
    on_lost.append(lost.set)
    answer = asyncio.ensure_future(_ping_twice(client))
    try:
        while client.is_connected and not (lost.is_set() or answer.done()):
            await asyncio.wait({answer}, timeout=PAUSE_SECONDS)
        return answer.done() and answer.exception() is None
    finally:
        on_lost.remove(lost.set)
        answer.cancel()


async def _ping_twice(client: Client) -> None:
    """Wait for the answers to two pings, one after the other.

    The client writes a ping at once and a subscription from a queue, so the first ping may overtake
    a subscription made before it. By the time it is answered the queue has been written.
    """
    for _ in range(2):
        await client.flush(timeout=NEVER)
