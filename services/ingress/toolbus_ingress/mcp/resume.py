"""Resume a stream from `Last-Event-ID`, in this or another replica."""

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass, field

from toolbus_common.concurrency import in_background
from toolbus_common.contracts import StreamReadReply, StreamReadRequest
from toolbus_common.errors import ToolbusError
from toolbus_common.nats.connection import Bus
from toolbus_ingress.auth.request_context import RequestContext
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.protocol_versions import ProtocolError
from toolbus_ingress.sessions.event_log import EventLog, Reader
from toolbus_ingress.sessions.event_log_store import (
    EventLogStore,
    StreamPosition,
    parse_event_id,
)
from toolbus_ingress.sessions.session_store import Session
from toolbus_ingress.sessions.sse_writer import EventStream, serve_reader

LAST_EVENT = b"last-event-id"
FIND_SECONDS = 5.0  # NATS reports a missing replica within milliseconds
RENEW_SECONDS = 15.0  # the interval at which a replica confirms that its client is connected
MAX_WAITING = 1024  # events of another replica, buffered for a slow reader
LEASE_SECONDS = 60.0  # after which the other replica stops sending without a confirmation

_NOT_STORED = jsonrpc.error(
    400,
    jsonrpc.INVALID_REQUEST,
    "The stream of this Last-Event-ID is not stored: it expired, was dropped for a newer one, or "
    "belongs to another session. Check the audit log before repeating the call.",
)


@dataclass(eq=False, slots=True)
class _RemoteStream:
    """A stream that a client reads here. `found`: whether the other replica has it."""

    event_log: EventLog
    found: asyncio.Future[bool] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@dataclass(eq=False, slots=True)
class _RemoteReader:
    """A client of another replica that reads a stream here, until its lease expires."""

    reader: Reader
    lease: asyncio.TimerHandle


class Resumption:
    """Resumption of streams from this replica, or from the replica that has the stream."""

    def __init__(self, bus: Bus, event_logs: EventLogStore) -> None:
        self._bus = bus
        self._event_logs = event_logs
        self._inbox = f"_INBOX.{bus.name}.resume-{secrets.token_hex(8)}"
        self._remote_streams: dict[str, _RemoteStream] = {}
        self._remote_readers: dict[str, _RemoteReader] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Subscribe to the requests and replies of the other replicas."""
        subject = f"{StreamReadRequest.SUBJECT}.{self._event_logs.replica}"
        await self._bus.subscribe(subject, self._on_request)
        await self._bus.subscribe(
            f"{self._inbox}.*", self._on_reply, on_no_responders=self._on_no_replica
        )
        self._bus.on_lost.append(self.close)

    def close(self) -> None:
        """End all reading from other replicas; the clients reconnect."""
        for remote in tuple(self._remote_streams.values()):
            remote.event_log.close()
        for remote_reader in tuple(self._remote_readers.values()):
            remote_reader.reader.leave()

    async def resume(self, context: RequestContext, session: Session, event_id: bytes) -> bool:
        """Serve the rest of a stream after an event.

        Return False if the session's own stream must be restarted.

        Raises:
            ProtocolError: the stream of an answer is not stored.

        """
        position = parse_event_id(event_id)
        if position is not None:
            event_log = self._event_logs.find(session.sid, position.stream)
            if event_log is not None:
                reader = event_log.read(position.number)
                await serve_reader(context.scope, reader, EventStream(context.send))
                return True
            if position.replica != self._event_logs.replica and await self._resume_remote(
                context, session, position
            ):
                return True
            if position.is_session_stream:
                return False
        raise ProtocolError(_NOT_STORED)

    # -- for a client of this replica ------------------------------------------------------------

    async def _resume_remote(
        self, context: RequestContext, session: Session, position: StreamPosition
    ) -> bool:
        """Read a stream from another replica; return whether that replica has it."""
        reader_id = secrets.token_hex(8)
        remote = _RemoteStream(EventLog(position.stream, MAX_WAITING))
        self._remote_streams[reader_id] = remote
        remote.event_log.retains, remote.event_log.last = False, position.number
        request = StreamReadRequest(
            replica=position.replica, session=session.sid, stream=position.stream,
            reader=reader_id, after=position.number,
        )  # fmt: skip
        try:
            async with in_background(self._renew(request, remote.event_log)):
                found = await _found(remote)
                if found:
                    reader = remote.event_log.read(position.number)
                    await serve_reader(context.scope, reader, EventStream(context.send))
                return found
        finally:
            del self._remote_streams[reader_id]
            with suppress(ToolbusError):
                await self._send(request.model_copy(update={"left": True}))

    async def _renew(self, request: StreamReadRequest, event_log: EventLog) -> None:
        while True:
            with suppress(ToolbusError):
                await self._send(request.model_copy(update={"after": event_log.last}))
            await asyncio.sleep(RENEW_SECONDS)

    async def _send(self, request: StreamReadRequest) -> None:
        await self._bus.publish(
            request.subject, request.encode(), f"{self._inbox}.{request.reader}"
        )

    def _on_reply(self, payload: bytes, _subject: str, _reply: str) -> None:
        reply = StreamReadReply.decode(payload)
        remote = self._remote_streams.get(reply.reader)
        if remote is None:
            return
        if reply.what == "event":
            remote.event_log.put_numbered(reply.number, reply.body)
        elif reply.what == "there":
            _resolve(remote.found, found=True)
        else:
            self._end(remote)

    def _on_no_replica(self, _payload: bytes, subject: str, _reply: str) -> None:
        remote = self._remote_streams.get(subject.rpartition(".")[2])
        if remote is not None:
            self._end(remote)

    def _end(self, remote: _RemoteStream) -> None:
        _resolve(remote.found, found=False)
        remote.event_log.close()

    # -- for a client of another replica -------------------------------------------------------

    def _on_request(self, payload: bytes, _subject: str, reply: str) -> None:
        request = StreamReadRequest.decode(payload)
        remote_reader = self._remote_readers.get(request.reader)
        if remote_reader is not None:
            remote_reader.lease.cancel()
            if request.left:
                remote_reader.reader.leave()
            else:
                remote_reader.lease = self._lease(remote_reader.reader)
        elif reply and not request.left:
            task = asyncio.create_task(self._serve_remote(request, reply))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _lease(self, reader: Reader) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(LEASE_SECONDS, reader.leave)

    async def _serve_remote(self, request: StreamReadRequest, reply_to: str) -> None:
        """Send another replica every event after a position."""

        async def send(what: str, number: int = 0, body: bytes = b"") -> None:
            reply = StreamReadReply(reader=request.reader, what=what, number=number, body=body)
            await self._bus.publish(reply_to, reply.encode())

        with suppress(ToolbusError):
            event_log = self._event_logs.find(request.session, request.stream)
            if event_log is None:
                await send("missing")
                return
            reader = event_log.read(request.after)
            remote_reader = _RemoteReader(reader, self._lease(reader))
            self._remote_readers[request.reader] = remote_reader
            try:
                await send("there")
                while (entry := await reader.next()) is not None:
                    await send("event", *entry)
                await send("ended")
            finally:
                reader.leave()
                remote_reader.lease.cancel()
                del self._remote_readers[request.reader]


async def _found(remote: _RemoteStream) -> bool:
    """Return whether the other replica has the stream; False if it does not reply in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(FIND_SECONDS):
            return await remote.found
    return False


def _resolve(future: asyncio.Future[bool], *, found: bool) -> None:
    if not future.done():
        future.set_result(found)
