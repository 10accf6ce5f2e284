"""Pass calls between services of one process directly, without NATS."""

from collections.abc import Awaitable, Callable
from typing import Any

from toolbus_common.contracts.replies import CallContext, Reply

# Handles a call and returns its final reply; None if another process replies to the caller.
CallHandler = Callable[[Any, CallContext], Awaitable[Reply | None]]


class LocalTransport:
    """Maps call subjects to the handlers of this process; empty if each service is a process."""

    def __init__(self) -> None:
        self._handlers: dict[str, CallHandler] = {}

    def serve(self, subject: str, handler: CallHandler) -> None:
        """Register the handler of a subject; `tb.call.*` takes calls of every server."""
        self._handlers[subject] = handler

    def leave(self, subject: str) -> None:
        """Remove the handler of a subject."""
        self._handlers.pop(subject, None)

    def find(self, subject: str, server: str) -> CallHandler | None:
        """Return the handler in this process for calls of a server, if there is one."""
        return self._handlers.get(f"{subject}.{server}") or self._handlers.get(f"{subject}.*")
