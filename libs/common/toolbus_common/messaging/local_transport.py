"""Transport of calls between services of one process, without NATS."""

from collections.abc import Awaitable, Callable
from typing import Any

from toolbus_common.contracts.replies import ReplyChannel, ReplyMessage
from toolbus_common.messaging.pending_replies import PendingReplies

CallHandler = Callable[[Any, ReplyChannel], Awaitable[None]]


class LocalReply:
    """Passes reply messages to a caller in this process."""

    __slots__ = ("_call_id", "_pending", "address")

    def __init__(self, pending: PendingReplies, call_id: str, address: str) -> None:
        self._pending = pending
        self._call_id = call_id
        self.address = address

    async def send(self, message: ReplyMessage) -> None:
        """Deliver the message immediately."""
        self._pending.deliver(self._call_id, message)


class LocalTransport:
    """The call handlers of this process by subject; empty if each service is a process."""

    def __init__(self) -> None:
        self._handlers: dict[str, CallHandler] = {}

    def serve(self, subject: str, handler: CallHandler) -> None:
        """Register the handler of a subject. `tb.call.*` means the calls of all servers."""
        self._handlers[subject] = handler

    def leave(self, subject: str) -> None:
        """Remove the handler of a subject."""
        self._handlers.pop(subject, None)

    def find(self, subject: str, server: str) -> CallHandler | None:
        """Return this process's handler for the calls of a server; None if there is none."""
        return self._handlers.get(f"{subject}.{server}") or self._handlers.get(f"{subject}.*")
