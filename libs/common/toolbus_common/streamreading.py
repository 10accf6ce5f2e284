"""Reading a stream in its own order from any place, without a consumer and without a right to more.

NATS 2.11 calls it a batched direct get (ADR-31).
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from toolbus_common.errors import BusDownError

MOST = 1000  # messages the server gives at once
_ANSWER_SECONDS = 5.0
_END, _NOTHING = "204", "404"
_SEQUENCE = "Nats-Sequence"  # only what the stream keeps has it


@dataclass(frozen=True, slots=True)
class Kept:
    """One message as the stream keeps it."""

    sequence: int
    subject: str
    data: bytes


async def begun(client: Client, stream: str) -> str:
    """When a stream was begun: a number that tells it from one of its name made later.

    Raises:
        BusDownError: the server does not say.

    """
    try:
        created: datetime | None = (await client.jetstream().stream_info(stream)).created
    except (NatsError, JetStreamError, TimeoutError) as error:
        raise BusDownError(f"The stream {stream} cannot be looked at: {error}") from error
    return str(int(created.timestamp() * 1000)) if created else "0"


async def read_from(
    client: Client, stream: str, first: int | datetime, subjects: str, most: int = MOST
) -> list[Kept]:
    """At most so many messages of these subjects, from a number or a time on, or none.

    Raises:
        BusDownError: the server did not answer to the end.

    """
    reading, inbox = _Reading(), client.new_inbox()
    try:
        subscription = await client.subscribe(inbox, cb=reading.hear)
        try:
            begin = {"start_time" if isinstance(first, datetime) else "seq": first}
            question = {**begin, "batch": most, "next_by_subj": subjects}
            asked = f"$JS.API.DIRECT.GET.{stream}"
            await client.publish(asked, msgspec.json.encode(question), inbox)
            status = await reading.ended()
        finally:
            await subscription.unsubscribe()
    except (NatsError, TimeoutError) as error:
        raise BusDownError(f"The stream {stream} cannot be read: {error}") from error
    if status not in (_END, _NOTHING):
        raise BusDownError(f"The stream {stream} cannot be read: the server answered {status}.")
    return reading.found


class _Reading:
    """Messages as they come in, without a task for each, until the server says that it was all."""

    def __init__(self) -> None:
        self.found: list[Kept] = []
        self._status = ""
        self._over = asyncio.Event()

    async def hear(self, message: Msg) -> None:
        """One message, or the end."""
        headers = message.headers or {}
        if _SEQUENCE in headers:
            self.found.append(Kept(int(headers[_SEQUENCE]), headers["Nats-Subject"], message.data))
        else:
            self._status = headers.get("Status", "")
            self._over.set()

    async def ended(self) -> str:
        """The last word, once it came. Raises `TimeoutError` when nothing more does."""
        while not self._over.is_set():
            before = len(self.found)
            with suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await self._over.wait()
            if not self._over.is_set() and len(self.found) == before:
                raise TimeoutError("no answer")
        return self._status
