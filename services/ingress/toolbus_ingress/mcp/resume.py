"""Clients that come back with `Last-Event-ID`: their streams go on, whoever holds them."""

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass, field

from toolbus_common.contracts import StreamReadReply, StreamReadRequest
from toolbus_common.errors import ToolbusError
from toolbus_common.nats.connection import Bus
from toolbus_ingress.auth.request_context import Visit
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.protocol_versions import RuleBrokenError
from toolbus_ingress.sessions.event_log import Journal, Reader
from toolbus_ingress.sessions.event_log_store import Place, Shelf, place_of
from toolbus_ingress.sessions.session_store import Session
from toolbus_ingress.sessions.sse_writer import EventStream, attend

LAST_EVENT = b"last-event-id"
SEEK_SECONDS = 5.0  # "nobody there" comes within milliseconds
RENEW_SECONDS = 15.0  # how often a replica says that its client is still there
MOST_WAITING = 1024  # events of another replica, for a slow reader
LEASE_SECONDS = 60.0  # how long another believes it

_GONE = jsonrpc.error(
    400,
    jsonrpc.INVALID_REQUEST,
    "Nothing is kept of the stream this Last-Event-ID names: it is too old, was dropped for newer "
    "ones, or is not of this session. Look the call up in the audit before repeating it.",
)


@dataclass(eq=False, slots=True)
class _Sought:
    """A stream of another replica, as its client reads it here."""

    journal: Journal
    held: asyncio.Future[bool] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@dataclass(eq=False, slots=True)
class _Lent:
    """A stream of ours that a client of another replica reads; the lease ends the reading."""

    reader: Reader
    lease: asyncio.TimerHandle


class Resumption:
    """Finds the stream an event's id names, here or at the replica that holds it."""

    def __init__(self, bus: Bus, shelf: Shelf) -> None:
        self._bus = bus
        self._shelf = shelf
        self._inbox = f"_INBOX.{bus.name}.resume-{secrets.token_hex(8)}"
        self._sought: dict[str, _Sought] = {}
        self._lent: dict[str, _Lent] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to hear the other replicas."""
        subject = f"{StreamReadRequest.SUBJECT}.{self._shelf.replica}"
        await self._bus.subscribe(subject, self._asked)
        await self._bus.subscribe(f"{self._inbox}.*", self._told, on_nobody=self._nobody)
        self._bus.on_lost.append(self.close)

    def close(self) -> None:
        """End every reading that needs the bus; the clients come back."""
        for sought in tuple(self._sought.values()):
            sought.journal.close()
        for lent in tuple(self._lent.values()):
            lent.reader.leave()

    async def follow(self, visit: Visit, session: Session, event_id: bytes) -> bool:
        """Go on with a stream; False where its session can as well begin a new one.

        Raises:
            RuleBrokenError: the answer it belongs to is not kept.

        """
        place = place_of(event_id)
        if place is not None:
            journal = self._shelf.find(session.sid, place.stream)
            if journal is not None:
                await attend(visit.scope, journal.read(place.number), EventStream(visit.send))
                return True
            if place.replica != self._shelf.replica and await self._elsewhere(
                visit, session, place
            ):
                return True
            if place.standing:
                return False
        raise RuleBrokenError(_GONE)

    # -- for a client of ours ------------------------------------------------------------------

    async def _elsewhere(self, visit: Visit, session: Session, place: Place) -> bool:
        """Have another replica tell us its stream; whether it holds it."""
        reader = secrets.token_hex(8)
        sought = self._sought[reader] = _Sought(Journal(place.stream, MOST_WAITING))
        sought.journal.keeps, sought.journal.last = False, place.number
        asked = StreamReadRequest(
            replica=place.replica, session=session.sid, stream=place.stream, reader=reader,
            after=place.number,
        )  # fmt: skip
        renewing = asyncio.create_task(self._renew(asked, sought.journal))
        try:
            held = await _held(sought)
            if held:
                reading = sought.journal.read(place.number)
                await attend(visit.scope, reading, EventStream(visit.send))
            return held
        finally:
            renewing.cancel()
            del self._sought[reader]
            with suppress(ToolbusError):
                await self._say(asked.model_copy(update={"left": True}))

    async def _renew(self, asked: StreamReadRequest, journal: Journal) -> None:
        while True:
            with suppress(ToolbusError):
                await self._say(asked.model_copy(update={"after": journal.last}))
            await asyncio.sleep(RENEW_SECONDS)

    async def _say(self, asked: StreamReadRequest) -> None:
        await self._bus.publish(asked.subject, asked.encode(), f"{self._inbox}.{asked.reader}")

    def _told(self, payload: bytes, _subject: str, _reply: str) -> None:
        told = StreamReadReply.decode(payload)
        sought = self._sought.get(told.reader)
        if sought is None:
            return
        if told.what == "event":
            sought.journal.hear(told.number, told.body)
        elif told.what == "there":
            _settle(sought.held, held=True)
        else:
            self._lose(sought)

    def _nobody(self, _payload: bytes, subject: str, _reply: str) -> None:
        sought = self._sought.get(subject.rpartition(".")[2])
        if sought is not None:
            self._lose(sought)

    def _lose(self, sought: _Sought) -> None:
        _settle(sought.held, held=False)
        sought.journal.close()

    # -- for a client of another replica -------------------------------------------------------

    def _asked(self, payload: bytes, _subject: str, reply: str) -> None:
        asked = StreamReadRequest.decode(payload)
        lent = self._lent.get(asked.reader)
        if lent is not None:
            lent.lease.cancel()
            if asked.left:
                lent.reader.leave()
            else:
                lent.lease = self._lease(lent.reader)
        elif reply and not asked.left:
            task = asyncio.create_task(self._lend(asked, reply))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _lease(self, reader: Reader) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(LEASE_SECONDS, reader.leave)

    async def _lend(self, asked: StreamReadRequest, reply: str) -> None:
        """Tell another replica all that comes after an event."""

        async def tell(what: str, number: int = 0, body: bytes = b"") -> None:
            told = StreamReadReply(reader=asked.reader, what=what, number=number, body=body)
            await self._bus.publish(reply, told.encode())

        with suppress(ToolbusError):
            journal = self._shelf.find(asked.session, asked.stream)
            if journal is None:
                await tell("missing")
                return
            reader = journal.read(asked.after)
            lent = self._lent[asked.reader] = _Lent(reader, self._lease(reader))
            try:
                await tell("there")
                while (entry := await reader.next()) is not None:
                    await tell("event", *entry)
                await tell("ended")
            finally:
                reader.leave()
                lent.lease.cancel()
                del self._lent[asked.reader]


async def _held(sought: _Sought) -> bool:
    """Whether the other replica has the stream; one that does not answer has not."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SEEK_SECONDS):
            return await sought.held
    return False


def _settle(future: asyncio.Future[bool], *, held: bool) -> None:
    if not future.done():
        future.set_result(held)
