"""Reading a stream in its own order from any place, without a consumer and without a right to more.

NATS 2.11 calls it a batched direct get (ADR-31).
"""

import asyncio
import re
from base64 import b64decode
from collections.abc import AsyncGenerator
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
MOST_BYTES = 8 << 20  # of one batch, which may end with a message as large again
_ANSWER_SECONDS = 5.0
_END, _NOTHING = "204", "404"
_SEQUENCE = "Nats-Sequence"  # only what the stream keeps has it
_SIZE = "Nats-Msg-Size"  # of a message of which only the headers are told
_GONE = re.compile(r"^KV-Operation:\s*(DEL|PURGE)\s*$", re.MULTILINE)  # an entry was deleted
_NONE_FOUND = 10037  # NATS: no message found
_BEFORE = "Nats-Last-Sequence"  # the message of the same answer that comes before


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One message as the stream keeps it; `gone` is the mark that an entry was deleted."""

    sequence: int
    subject: str
    data: bytes
    gone: bool = False
    size: int = 0
    at: str = ""  # in ISO 8601


@dataclass(frozen=True, slots=True)
class Extent:
    """Which stream this is, and the number of its newest message, as its leader knows it."""

    begun: str
    newest: int


class _Stored(msgspec.Struct):
    subject: str
    seq: int
    time: str = ""
    data: str = ""
    hdrs: str = ""


class _Fault(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Told(msgspec.Struct):
    message: _Stored | None = None
    error: _Fault | None = None


async def begun(client: Client, stream: str) -> str:
    """When a stream was begun: a number that tells it from one of its name made later.

    Raises:
        BusDownError: the server does not say.

    """
    return (await extent(client, stream)).begun


async def extent(client: Client, stream: str) -> Extent:
    """Return which stream has this name now, and how far it goes.

    Raises:
        BusDownError: the server does not say.

    """
    try:
        told = await client.jetstream().stream_info(stream)
    except (NatsError, JetStreamError, TimeoutError) as error:
        raise BusDownError(f"The stream {stream} cannot be looked at: {error}") from error
    created: datetime | None = told.created
    return Extent(str(int(created.timestamp() * 1000)) if created else "0", told.state.last_seq)


async def read_on(
    client: Client, stream: str, first: int, subjects: str
) -> AsyncGenerator[list[StreamEntry]]:
    """Yield batches of everything the stream keeps of these subjects, from a number on.

    A replica that lags behind may serve the batches: the end is where the leader has nothing more.

    Raises:
        BusDownError: the server did not answer to the end.

    """
    while True:
        kept = await read_from(client, stream, first, subjects, most_bytes=MOST_BYTES)
        if not kept:
            after = await next_at_leader(client, stream, first, subjects)
            if after is None:
                return
            kept = [after]
        yield kept
        first = kept[-1].sequence + 1


async def read_from(
    client: Client,
    stream: str,
    first: int | datetime,
    subjects: str,
    most: int = MOST,
    most_bytes: int = 0,
) -> list[StreamEntry]:
    """At most so many messages of these subjects, from a number or a time on, or none.

    `most_bytes` ends a batch early; zero leaves that to the server. Any replica of the stream may
    answer, also one that lags behind: see `next_at_leader`.

    Raises:
        BusDownError: the server did not answer to the end, or part of the answer was lost.

    """
    reading, inbox = _Reading(), client.new_inbox()
    try:
        subscription = await client.subscribe(inbox, cb=reading.hear)
        try:
            begin = {"start_time" if isinstance(first, datetime) else "seq": first}
            bound = {"max_bytes": most_bytes} if most_bytes else {}
            question = {**begin, "batch": most, "next_by_subj": subjects, **bound}
            asked = f"$JS.API.DIRECT.GET.{stream}"
            await client.publish(asked, msgspec.json.encode(question), inbox)
            status = await reading.ended()
        finally:
            await subscription.unsubscribe()
    except (NatsError, TimeoutError) as error:
        raise BusDownError(f"The stream {stream} cannot be read: {error}") from error
    if status not in (_END, _NOTHING):
        raise BusDownError(f"The stream {stream} cannot be read: the server answered {status}.")
    if reading.torn:
        raise BusDownError(f"The stream {stream} cannot be read: part of the answer was lost.")
    return reading.found


async def next_at_leader(
    client: Client, stream: str, first: int, subjects: str
) -> StreamEntry | None:
    """Return the first such message from a number on, or None, as the stream's leader knows it.

    Raises:
        BusDownError: there is no leader, or it did not answer.

    """
    asked = msgspec.json.encode({"seq": first, "next_by_subj": subjects})
    try:
        answer = await client.request(
            f"$JS.API.STREAM.MSG.GET.{stream}", asked, timeout=_ANSWER_SECONDS
        )
        told = msgspec.json.decode(answer.data, type=_Told)
    except (NatsError, TimeoutError, msgspec.MsgspecError) as error:
        raise BusDownError(f"The stream {stream} cannot be read: {error}") from error
    if told.message is not None:
        each = told.message
        data, headers = b64decode(each.data), b64decode(each.hdrs).decode(errors="replace")
        gone = _GONE.search(headers.replace("\r", "")) is not None
        return StreamEntry(each.seq, each.subject, data, gone, len(data), each.time)
    if told.error is not None and told.error.err_code == _NONE_FOUND:
        return None
    why = told.error.description if told.error is not None else "nothing"
    raise BusDownError(f"The stream {stream} cannot be read: the server answered {why}.")


def repeated(message: Msg, stream: str) -> StreamEntry | None:
    """Return what a stream says it has just kept; None where the message says nothing of that."""
    headers = message.headers or {}
    if headers.get("Nats-Stream") != stream or not headers.get(_SEQUENCE, "").isdigit():
        return None
    return _kept(message, headers)


def _kept(message: Msg, headers: dict[str, str]) -> StreamEntry:
    return StreamEntry(
        int(headers[_SEQUENCE]),
        headers["Nats-Subject"],
        message.data,
        headers.get("KV-Operation") in ("DEL", "PURGE"),
        int(headers[_SIZE]) if _SIZE in headers else len(message.data),
        headers.get("Nats-Time-Stamp", ""),
    )


class _Reading:
    """Messages as they come in, without a task for each, until the server says that it was all.

    Each names the one before it, so that `torn` tells of any that was lost on the way.
    """

    def __init__(self) -> None:
        self.found: list[StreamEntry] = []
        self.torn = False
        self._status = ""
        self._over = asyncio.Event()

    async def hear(self, message: Msg) -> None:
        """One message, or the end."""
        headers = message.headers or {}
        if _BEFORE in headers:
            before = self.found[-1].sequence if self.found else 0
            self.torn = self.torn or int(headers[_BEFORE]) != before
        if _SEQUENCE in headers:
            self.found.append(_kept(message, headers))
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
