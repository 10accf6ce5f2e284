"""Batches of a durable consumer: one request each, and the messages as they come in.

The client's own `fetch` makes two tasks for every message: that costs more than all audit does
with an event.
"""

import asyncio
from contextlib import suppress

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from toolbus_common.errors import BusDownError

MOST_BYTES = 32 << 20  # of one batch; the largest message is a quarter of it
LATE_SECONDS = 1.0  # how much longer than asked the server's word is waited for
_SHORT_REPLY = 9  # tokens of a reply subject that tells no domain
_QUIET = frozenset({"404", "408"})  # there is nothing, or not as much as was asked for


class PullConsumer:
    """The requests of one consumer, each answered under a number of its own."""

    def __init__(self, client: Client, stream: str, durable: str) -> None:
        self._client = client
        self._asked = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = client.new_inbox()
        self._subscription: Subscription
        self._number = 0
        self._came: list[Msg] = []
        self._most = 0
        self._status = ""
        self._over = asyncio.Event()

    async def open(self) -> None:
        """Begin to hear answers."""
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._hear)

    async def close(self) -> None:
        """Hear no more; what was not acknowledged comes again."""
        if self._client.is_connected:
            await self._subscription.unsubscribe()

    async def next(self, most: int, seconds: float) -> list[Msg]:
        """So many messages, or those that came in time; none if it was quiet.

        Raises:
            BusDownError: the server refuses.

        """
        if not self._client.is_connected:  # requests would heap up in the client
            await asyncio.sleep(seconds)
            return self._taken()
        self._number += 1
        self._most, self._status = most, ""
        self._over.clear()
        asked = {"batch": most, "expires": int(seconds * 1e9), "max_bytes": MOST_BYTES}
        inbox = f"{self._inbox}.{self._number}"
        await self._client.publish(self._asked, msgspec.json.encode(asked), inbox)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds + LATE_SECONDS):
                await self._over.wait()
        return self._taken()

    async def _hear(self, message: Msg) -> None:
        if message.reply:  # the server's own word cannot be acknowledged
            self._came.append(message)
            if len(self._came) >= self._most:
                self._over.set()
        elif message.subject == f"{self._inbox}.{self._number}":  # else it is of an earlier request
            told = message.headers or {}
            self._status = f"{told.get('Status', '')} {told.get('Description', '')}"
            self._over.set()

    def _taken(self) -> list[Msg]:
        came, self._came = self._came, []
        if not came and self._status and self._status[:3] not in _QUIET:
            raise BusDownError(f"The server gives no messages: {self._status}")
        return came


def place(reply: str) -> tuple[int, int, int]:
    """What a message's reply subject tells: its number, how often it came, how many follow."""
    tokens = reply.split(".")
    # $JS.ACK.[domain.account.]stream.consumer.delivered.number.place.time.pending[.token]
    first = 4 if len(tokens) == _SHORT_REPLY else 6
    return int(tokens[first + 1]), int(tokens[first]), int(tokens[first + 4])
