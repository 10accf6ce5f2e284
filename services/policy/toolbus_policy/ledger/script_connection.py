"""One pipelined connection to Redis: replies resolve futures directly, without a task or a lock."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from hiredis import PushNotification, Reader, pack_command
from redis.asyncio import Connection
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import ResponseError

log = logging.getLogger(__name__)

_INCOMPLETE = object()
# The server did not run the script because it is a replica. The primary's name may have moved to
# another server.
_NOT_PRIMARY = ("READONLY", "MASTERDOWN")


class Command:
    """A command, the future of its reply, and the due time of the reply by the loop's clock."""

    __slots__ = ("arguments", "due", "loaded", "reply", "resent")

    def __init__(self, arguments: tuple[Any, ...], reply: asyncio.Future[Any], due: float) -> None:
        self.arguments = arguments
        self.reply = reply
        self.due = due
        self.resent = False
        self.loaded = False


class ScriptConnection(asyncio.Protocol):
    """Sends commands and ends the oldest one with each reply.

    The connection is closed if it breaks, if a reply is late, if the server is a replica, or if the
    server sends a message that no command requested (the order of the replies is then unknown).
    `on_lost` then receives the unanswered commands. A script that the server does not have is
    loaded and sent again.
    """

    def __init__(
        self,
        sources: Mapping[str, bytes],
        on_lost: Callable[["ScriptConnection", list[Command]], None],
    ) -> None:
        self._sources = sources
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._unanswered: deque[Command] = deque()
        self._reader = Reader(
            protocolError=BrokenError, replyError=ResponseError, notEnoughData=_INCOMPLETE
        )
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._closed = False
        self._writer: asyncio.StreamWriter  # referenced because its deletion closes the transport

    async def open(self, client: Connection) -> None:
        """Let the client connect and authenticate, and take over its transport.

        The client has no public accessor of the transport, so pyproject.toml limits its versions.
        Raises the client's errors.
        """
        try:
            await client.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await client.disconnect(nowait=True)
            raise
        writer = getattr(client, "_writer", None)
        if writer is None or writer.transport.is_closing():
            raise BrokenError("Redis closed the connection.")
        client._reader = client._writer = None  # noqa: SLF001 - else it would close the transport
        self._writer = writer
        writer.transport.set_protocol(self)

    def send(self, command: Command) -> None:
        """Send a command; its reply ends the command's future."""
        self._unanswered.append(command)
        self._writer.transport.write(pack_command(command.arguments))
        if self._timer is None or command.due < self._timer_due:
            self._watch(command.due)

    def close(self) -> list[Command]:
        """Close the connection and return the unanswered commands."""
        self._closed = True
        self._writer.transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        unanswered, self._unanswered = list(self._unanswered), deque()
        return unanswered

    def data_received(self, data: bytes) -> None:
        """End the commands whose replies are complete."""
        self._reader.feed(data)
        try:
            while not self._closed and (reply := self._reader.gets()) is not _INCOMPLETE:
                self._end_oldest(reply)
        except BrokenError as error:
            log.error("ledger.connection_closed", extra={"reason": str(error)})  # noqa: TRY400
            self._on_lost(self, self.close())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Pass the unanswered commands to `on_lost`."""
        self._on_lost(self, self.close())

    def _end_oldest(self, reply: Any) -> None:
        if not self._unanswered or isinstance(reply, PushNotification):
            raise BrokenError("The server sent a message that no command requested.")
        if isinstance(reply, ResponseError) and str(reply).startswith(_NOT_PRIMARY):
            raise BrokenError(str(reply))  # the command remains unanswered
        self._end(self._unanswered.popleft(), reply)

    def _end(self, command: Command, reply: Any) -> None:
        if command.reply.done():  # cancelled
            return
        if not isinstance(reply, ResponseError):
            command.reply.set_result(reply)
        elif str(reply).startswith("NOSCRIPT") and not command.loaded:
            command.loaded = True
            source = self._sources[command.arguments[1]]
            load = Command(("SCRIPT", "LOAD", source), self._loop.create_future(), command.due)
            load.reply.add_done_callback(asyncio.Future.exception)  # the script then fails again
            self.send(load)
            self.send(command)
        else:
            command.reply.set_exception(reply)

    def _watch(self, due: float) -> None:
        """Set the connection's one timer. It is set again when it fires, not for each command."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_due = self._loop.call_at(due, self._check), due

    def _check(self) -> None:
        self._timer = None
        if not self._unanswered:
            return
        due = min(command.due for command in self._unanswered)
        if due > self._loop.time():
            self._watch(due)
        else:
            self._on_lost(self, self.close())
