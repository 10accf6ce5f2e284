"""Wait until the NATS server has registered all subscriptions, without a time limit."""

import asyncio
import logging
from collections.abc import Callable

from nats.aio.client import Client

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.2
NEVER = 86_400  # seconds


async def settled(client: Client, on_lost: list[Callable[[], None]]) -> None:
    """Wait until the server has registered all subscriptions made so far.

    After a reconnection, the client subscribes again. The function then waits for the server again.
    """
    while not (await _answered(client, on_lost) or client.is_closed):
        log.info("bus.not_settled")
        await asyncio.sleep(PAUSE_SECONDS)


async def _answered(client: Client, on_lost: list[Callable[[], None]]) -> bool:
    """Return whether the server replied to a ping before the connection was lost.

    Only the loss of the connection ends the wait. A timeout of the client would cancel the future
    of the reply, and a reply to a cancelled future ends the read loop of the client.
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
    """Wait for the replies to two consecutive pings.

    The client writes a ping immediately, but a subscription from a queue. The first ping can
    therefore overtake an earlier subscription. When its reply arrives, the queue has been written.
    """
    for _ in range(2):
        await client.flush(timeout=NEVER)
