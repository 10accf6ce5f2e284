"""The call lane's second transport: services of one process hand each other calls directly."""

from collections.abc import Awaitable, Callable
from typing import Any

from toolbus_common.contracts.replies import ReplyChannel, ReplyMessage
from toolbus_common.messaging.pending_replies import PendingReplies

CallHandler = Callable[[Any, ReplyChannel], Awaitable[None]]


class LocalReply:
    """The waiting slot is in this process: a frame is handed over as it is."""

    __slots__ = ("_call_id", "_mux", "address")

    def __init__(self, mux: PendingReplies, call_id: str, address: str) -> None:
        self._mux = mux
        self._call_id = call_id
        self.address = address

    async def send(self, frame: ReplyMessage) -> None:
        """Deliver at once."""
        self._mux.deliver(self._call_id, frame)


class LocalTransport:
    """Who in this process serves which call subject. Services apart each have an empty one."""

    def __init__(self) -> None:
        self._handlers: dict[str, CallHandler] = {}

    def serve(self, subject: str, handler: CallHandler) -> None:
        """Take calls on a subject; `tb.call.*` takes every server's."""
        self._handlers[subject] = handler

    def leave(self, subject: str) -> None:
        """Take no more."""
        self._handlers.pop(subject, None)

    def find(self, lane: str, server: str) -> CallHandler | None:
        """The handler in this process for a server's calls, if there is one."""
        return self._handlers.get(f"{lane}.{server}") or self._handlers.get(f"{lane}.*")
