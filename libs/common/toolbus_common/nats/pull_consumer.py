"""Fetching of batches from a durable consumer, with one request per batch.

The client's own `fetch` creates two tasks per message. This costs more than all the work of audit
on an event.
"""

import asyncio
from contextlib import suppress

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from toolbus_common.errors import BusDownError

MAX_BYTES = 32 << 20  # of one batch; at least four times the largest message
LATE_SECONDS = 1.0  # additional wait for the server's final status
_SHORT_REPLY = 9  # tokens of a reply subject without a domain
_QUIET = frozenset({"404", "408"})  # no messages, or fewer than requested


class PullConsumer:
    """Pull requests to one durable consumer. Each request has a separate reply subject."""

    def __init__(self, client: Client, stream: str, durable: str) -> None:
        self._client = client
        self._request_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = client.new_inbox()
        self._subscription: Subscription
        self._number = 0
        self._received: list[Msg] = []
        self._max_messages = 0
        self._status = ""
        self._over = asyncio.Event()

    async def open(self) -> None:
        """Subscribe to the replies."""
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._receive)

    async def close(self) -> None:
        """Unsubscribe. The server redelivers messages that were not acknowledged."""
        if self._client.is_connected:
            await self._subscription.unsubscribe()

    async def next(self, max_messages: int, seconds: float) -> list[Msg]:
        """Return up to `max_messages` messages that arrive within `seconds`.

        The list is empty if none arrives.

        Raises:
            BusDownError: the server rejected the request.

        """
        if not self._client.is_connected:  # requests would accumulate in the client
            await asyncio.sleep(seconds)
            return self._take_received()
        self._number += 1
        self._max_messages, self._status = max_messages, ""
        self._over.clear()
        request = {"batch": max_messages, "expires": int(seconds * 1e9), "max_bytes": MAX_BYTES}
        inbox = f"{self._inbox}.{self._number}"
        await self._client.publish(self._request_subject, msgspec.json.encode(request), inbox)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds + LATE_SECONDS):
                await self._over.wait()
        return self._take_received()

    async def _receive(self, message: Msg) -> None:
        if message.reply:  # a status message of the server cannot be acknowledged
            self._received.append(message)
            if len(self._received) >= self._max_messages:
                self._over.set()
        elif message.subject == f"{self._inbox}.{self._number}":  # not of an earlier request
            headers = message.headers or {}
            self._status = f"{headers.get('Status', '')} {headers.get('Description', '')}"
            self._over.set()

    def _take_received(self) -> list[Msg]:
        received, self._received = self._received, []
        if not received and self._status and self._status[:3] not in _QUIET:
            raise BusDownError(f"NATS returned no messages: {self._status}; retry.")
        return received


def ack_position(reply: str) -> tuple[int, int, int]:
    """Return the sequence number, delivery count and number of pending messages.

    `reply` is the reply subject of a message, which contains them.
    """
    tokens = reply.split(".")
    # $JS.ACK.[domain.account.]stream.consumer.delivered.number.place.time.pending[.token]
    first = 4 if len(tokens) == _SHORT_REPLY else 6
    return int(tokens[first + 1]), int(tokens[first]), int(tokens[first + 4])
