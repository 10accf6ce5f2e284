"""Transport of calls between services of one process, without NATS."""

from collections.abc import Awaitable, Callable
from typing import Any

from toolbus_common.contracts.replies import CallContext, Reply

# Handles a call and returns its final reply; None if another process replies to the caller.
CallHandler = Callable[[Any, CallContext], Awaitable[Reply | None]]


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
