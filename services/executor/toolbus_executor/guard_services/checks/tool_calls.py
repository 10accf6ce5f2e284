"""Calls of tools that check content. They are calls of Toolbus itself, not of a caller."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from time import time
from typing import Any, Protocol

import msgspec

from toolbus_common.contracts import CallAdmitted, ProtocolFamily
from toolbus_common.contracts.replies import CallContext, ReplyMessage
from toolbus_common.errors import UpstreamDeadError
from toolbus_common.observability.trace_context import child_of

PRINCIPAL = "toolbus:guards"  # the owner of sessions for these calls


class Asks(Protocol):
    """The handler of one server."""

    def ask(self, call: CallAdmitted, context: CallContext) -> Awaitable[bytes]:
        """Return the raw result of a call."""
        ...


class _NoCaller:
    """The context of a call that has no caller: its messages before the result are dropped."""

    async def send(self, message: ReplyMessage) -> None:
        """Drop a message."""


class ToolCalls:
    """Calls of tools of the configured servers. `handler_of` returns the handler of a server."""

    def __init__(self, handler_of: Callable[[str], Asks | None]) -> None:
        self._handler_of = handler_of

    async def call(
        self, server: str, tool: str, arguments: dict[str, Any], seconds: float
    ) -> bytes:
        """Return the raw result of a call.

        Raises:
            UpstreamDeadError: this executor has no connection to the server.
            ToolbusError: the server rejected the call.
            TimeoutError: it did not respond in time.

        """
        handler = self._handler_of(server)
        if handler is None:
            raise UpstreamDeadError(f"The server '{server}' is not configured.", sent=False)
        call = CallAdmitted(
            call_id=f"guard-{uuid.uuid4().hex}",
            reply_to="",
            server=server,
            tool=tool,
            customer="",
            key="",
            family=ProtocolFamily.MODERN,
            deadline=time() + seconds,
            traceparent=child_of(""),
            principal_id=PRINCIPAL,
            arguments=msgspec.json.encode(arguments),
        )
        async with asyncio.timeout(seconds):
            return await handler.ask(call, _NoCaller())
