"""Reading of a stream in its own order from any position, without a consumer.

NATS 2.11 calls this a batched direct get (ADR-31).
"""

import asyncio
import re
from base64 import b64decode
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import StreamInfo
from nats.js.errors import Error as JetStreamError

from toolbus_common.errors import BusDownError, EventsFullError

# Metadata of a stream that was restored from a snapshot: when the original was created. The server
# sets a new creation time, but positions in tables and logs name the original.
ORIGINAL_CREATION = "toolbus.created"
MAX_MESSAGES = 1000  # messages per batch
MAX_BYTES = 8 << 20  # of one batch; the last message can exceed it
_ANSWER_SECONDS = 5.0
_END, _NOTHING = "204", "404"
_SEQUENCE = "Nats-Sequence"  # header of stored messages only
_SIZE = "Nats-Msg-Size"  # size of a message that is sent without its data
_GONE = re.compile(r"^KV-Operation:\s*(DEL|PURGE)\s*$", re.MULTILINE)  # an entry was deleted
_NONE_FOUND = 10037  # NATS: no message found
_NOT_STORED = 10077  # NATS: maximum bytes or messages exceeded, or a failed write
_IN_PROCESS = 10158  # NATS: a message with this id is in process
_NO_STORAGE = (10002, 10023, 10047)  # NATS: the limit of the account or of the server is reached
_LATER = "Nats-Num-Pending"
_BEFORE = "Nats-Last-Sequence"  # sequence number of the previous message in the reply


@dataclass(frozen=True, slots=True)
class StreamUse:
    """The stored bytes of a stream, their maximum, and how many servers have a copy.

    `is_single_copy` means that one server of several has the only copy. `lagging` counts the copies
    that are incomplete or cannot be reached.
    """

    stored: int
    maximum: int
    replicas: int
    is_single_copy: bool
    lagging: int = 0

    @property
    def fill(self) -> float:
        """The stored share of the maximum; 0 without a maximum."""
        return self.stored / self.maximum if self.maximum > 0 else 0.0


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One message of a stream. `gone` is true if the message deletes an entry."""

    sequence: int
    subject: str
    data: bytes
    gone: bool = False
    size: int = 0
    at: str = ""  # time of storage in ISO 8601
    later: int = (
        0  # later messages on the subjects of a batch, as the replica that replied has them
    )


@dataclass(frozen=True, slots=True)
class Extent:
    """The creation time of a stream and its newest sequence number, as reported by its leader."""

    created_at: str
    newest: int


@dataclass(frozen=True, slots=True)
class Contents:
    """The id of a stream, its first and last sequence number, and the messages on some subjects."""

    created_at: str
    first: int
    last: int
    messages: int


class _Stored(msgspec.Struct):
    subject: str
    seq: int
    time: str = ""
    data: str = ""
    hdrs: str = ""


class _ApiError(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Response(msgspec.Struct):
    message: _Stored | None = None
    error: _ApiError | None = None


def created(info: StreamInfo) -> datetime | None:
    """Return the creation time of a stream; for a restored stream, the time of the original."""
    if original := (info.config.metadata or {}).get(ORIGINAL_CREATION):
        return datetime.fromisoformat(original)
    found: datetime | None = info.created
    return found


async def created_at(client: Client, stream: str) -> str:
    """Return the creation time of a stream. It differs if the stream is re-created.

    Raises:
        BusDownError: the server did not reply.

    """
    return (await extent(client, stream)).created_at


async def extent(client: Client, stream: str) -> Extent:
    """Return the creation time of a stream and its newest sequence number.

    Raises:
        BusDownError: the server did not reply.

    """
    try:
        info = await client.jetstream().stream_info(stream)
    except (NatsError, JetStreamError, TimeoutError) as error:
        raise BusDownError(f"The stream '{stream}' cannot be read: {error}; retry.") from error
    return Extent(_stream_id(info), info.state.last_seq)


async def contents_of(client: Client, stream: str, subjects: str) -> Contents:
    """Return the contents of these subjects, from the stream's leader. Raises `BusDownError`."""
    try:
        info = await client.jetstream().stream_info(stream, subjects_filter=subjects)
    except (NatsError, JetStreamError, TimeoutError) as error:
        raise BusDownError(f"The stream '{stream}' cannot be read: {error}; retry.") from error
    count = sum((info.state.subjects or {}).values())
    return Contents(_stream_id(info), info.state.first_seq, info.state.last_seq, count)


def _stream_id(info: StreamInfo) -> str:
    at = created(info)
    return str(int(at.timestamp() * 1000)) if at else "0"


async def read_on(
    client: Client, stream: str, first: int, subjects: str
) -> AsyncGenerator[list[StreamEntry]]:
    """Yield batches of all messages on these subjects, starting at sequence number `first`.

    A batch can come from a replica that lags behind. Reading ends when the leader has no further
    message.

    Raises:
        BusDownError: the server did not complete its reply.

    """
    while True:
        entries = await read_from(client, stream, first, subjects, max_bytes=MAX_BYTES)
        if not entries:
            after = await next_at_leader(client, stream, first, subjects)
            if after is None:
                return
            entries = [after]
        yield entries
        first = entries[-1].sequence + 1


async def read_from(
    client: Client,
    stream: str,
    first: int | datetime,
    subjects: str,
    max_messages: int = MAX_MESSAGES,
    max_bytes: int = 0,
) -> list[StreamEntry]:
    """Return up to `max_messages` messages on these subjects, from a sequence number or time on.

    `max_bytes` limits the size of the batch; with zero the server chooses the limit. Any replica of
    the stream can reply, even a replica that lags behind (see `next_at_leader`).

    Raises:
        BusDownError: the server did not complete its reply, or a part of the reply was lost.

    """
    reading, inbox = _Reading(), client.new_inbox()
    try:
        subscription = await client.subscribe(inbox, cb=reading.receive)
        try:
            begin = {"start_time" if isinstance(first, datetime) else "seq": first}
            bound = {"max_bytes": max_bytes} if max_bytes else {}
            request = {**begin, "batch": max_messages, "next_by_subj": subjects, **bound}
            subject = f"$JS.API.DIRECT.GET.{stream}"
            await client.publish(subject, msgspec.json.encode(request), inbox)
            status = await reading.ended()
        finally:
            await subscription.unsubscribe()
    except (NatsError, TimeoutError) as error:
        raise BusDownError(f"The stream '{stream}' cannot be read: {error}; retry.") from error
    if status not in (_END, _NOTHING):
        raise BusDownError(f"The stream '{stream}' cannot be read: NATS replied {status}; retry.")
    if reading.torn:
        raise BusDownError(
            f"The stream '{stream}' cannot be read: part of the reply was lost; retry."
        )
    return reading.found


async def next_at_leader(
    client: Client, stream: str, first: int, subjects: str
) -> StreamEntry | None:
    """Return the first message on these subjects, as known to the leader of the stream.

    `first` is the lowest sequence number. Return None if there is no such message.

    Raises:
        BusDownError: there is no leader, or it did not reply.

    """
    return await _get_at_leader(client, stream, {"seq": first, "next_by_subj": subjects})


async def last_at_leader(client: Client, stream: str, subject: str) -> StreamEntry | None:
    """Return the last message on this subject, as known to the leader of the stream.

    Return None if there is no such message.

    Raises:
        BusDownError: there is no leader, or it did not reply.

    """
    return await _get_at_leader(client, stream, {"last_by_subj": subject})


async def _get_at_leader(
    client: Client, stream: str, wanted: dict[str, int | str]
) -> StreamEntry | None:
    try:
        answer = await client.request(
            f"$JS.API.STREAM.MSG.GET.{stream}", msgspec.json.encode(wanted), timeout=_ANSWER_SECONDS
        )
        response = msgspec.json.decode(answer.data, type=_Response)
    except (NatsError, TimeoutError, msgspec.MsgspecError) as error:
        raise BusDownError(f"The stream '{stream}' cannot be read: {error}; retry.") from error
    if response.message is not None:
        each = response.message
        data, headers = b64decode(each.data), b64decode(each.hdrs).decode(errors="replace")
        gone = _GONE.search(headers.replace("\r", "")) is not None
        return StreamEntry(each.seq, each.subject, data, gone, len(data), each.time)
    if response.error is not None and response.error.err_code == _NONE_FOUND:
        return None
    why = response.error.description if response.error is not None else "nothing"
    raise BusDownError(f"The stream '{stream}' cannot be read: NATS replied {why}; retry.")


def republished(message: Msg, stream: str) -> StreamEntry | None:
    """Return the stored message in a republished message; None for any other message."""
    headers = message.headers or {}
    if headers.get("Nats-Stream") != stream or not headers.get(_SEQUENCE, "").isdigit():
        return None
    return _entry_of(message, headers)


def _entry_of(message: Msg, headers: dict[str, str]) -> StreamEntry:
    return StreamEntry(
        int(headers[_SEQUENCE]),
        headers["Nats-Subject"],
        message.data,
        headers.get("KV-Operation") in ("DEL", "PURGE"),
        int(headers[_SIZE]) if _SIZE in headers else len(message.data),
        headers.get("Nats-Time-Stamp", ""),
        int(headers.get(_LATER, 0)),
    )


class _Reading:
    """Collects the messages of one batch up to the final status, without a task per message.

    Each message contains the sequence number of the previous one. `torn` is true if a message was
    lost.
    """

    def __init__(self) -> None:
        self.found: list[StreamEntry] = []
        self.torn = False
        self._status = ""
        self._over = asyncio.Event()

    async def receive(self, message: Msg) -> None:
        """Add one message, or store the final status."""
        headers = message.headers or {}
        if _BEFORE in headers:
            before = self.found[-1].sequence if self.found else 0
            self.torn = self.torn or int(headers[_BEFORE]) != before
        if _SEQUENCE in headers:
            self.found.append(_entry_of(message, headers))
        else:
            self._status = headers.get("Status", "")
            self._over.set()

    async def ended(self) -> str:
        """Wait for the final status and return it.

        Raises `TimeoutError` if no further message arrives in time.
        """
        while not self._over.is_set():
            before = len(self.found)
            with suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await self._over.wait()
            if not self._over.is_set() and len(self.found) == before:
                raise TimeoutError("no reply")
        return self._status


async def use_of(client: Client, stream: str) -> StreamUse:
    """Return how full a stream is. Raises `BusDownError`."""
    try:
        info = await client.jetstream().stream_info(stream)
    except (NatsError, JetStreamError, TimeoutError) as error:
        raise BusDownError(f"Stream '{stream}' cannot be read: {error}; retry.") from error
    replicas = info.config.num_replicas or 1
    clustered = info.cluster is not None and bool(info.cluster.name)
    single = clustered and replicas == 1
    copies = (info.cluster.replicas if info.cluster else None) or ()
    lagging = sum(not each.current or bool(each.offline) for each in copies)
    return StreamUse(info.state.bytes, info.config.max_bytes or -1, replicas, single, lagging)


def rejection(error: dict[str, Any], subject: str = "") -> BusDownError | LookupError:
    """Return the error for a message that a stream did not store.

    It is a `LookupError` if an earlier copy of the message has no quorum yet.
    """
    code, reason = error.get("err_code"), str(error.get("description"))
    if code == _IN_PROCESS:
        return LookupError(subject)
    if code in _NO_STORAGE or (code == _NOT_STORED and not reason.startswith("maximum ")):
        return EventsFullError(
            f"NATS has no space for events ({reason}), so the call could not be recorded and was "
            "not made. An operator frees disk space on the NATS servers, or raises their limit "
            "max_file_store."
        )
    if code == _NOT_STORED:
        return EventsFullError(
            "The stream of events is full, so the call could not be recorded and was not made. An "
            "operator gives it more space with 'toolbus provision --events-gib'."
        )
    return BusDownError(f"The stream rejected an event: {reason}; retry.")
