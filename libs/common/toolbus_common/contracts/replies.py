"""Reply messages of one call: any number of notifications, then one final reply."""

from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from toolbus_common.errors import ToolbusError


class Progress(Struct, frozen=True):
    """Progress of the call; `body` is the raw JSON of the notification's params."""

    body: bytes

    def encode(self) -> bytes:
        """Return the wire form."""
        return b"p" + self.body


class DeadlineExtended(Struct, frozen=True):
    """The call's deadline is now `deadline`, in seconds since the epoch."""

    deadline: float

    def encode(self) -> bytes:
        """Return the wire form."""
        return b"e%r" % self.deadline


class Notification(Struct, frozen=True):
    """Another notification about this call; `body` is the raw JSON of its params.

    `number` counts the parts of a stream from 1, so that the caller notices a lost part; it is 0
    for a notification that is not part of a stream.
    """

    method: str
    body: bytes
    number: int = 0

    def encode(self) -> bytes:
        """Return the wire form."""
        if self.number:
            return b"n%b %d\n%b" % (self.method.encode(), self.number, self.body)
        return b"n%b\n%b" % (self.method.encode(), self.body)


class StreamPaused(Struct, frozen=True):
    """The upstream closed its stream before the result; reconnect after `milliseconds`."""

    milliseconds: int

    def encode(self) -> bytes:
        """Return the wire form."""
        return b"w%d" % self.milliseconds


class CallResult(Struct, frozen=True):
    """The result, as raw JSON in the form of the caller's protocol family.

    `parts` is the number of parts of a streamed result, whose `body` is empty; 0 for any other
    result.
    """

    body: bytes
    parts: int = 0

    def encode(self) -> bytes:
        """Return the wire form."""
        return b"s%d" % self.parts if self.parts else b"a" + self.body


class InputRequired(Struct, frozen=True):
    """The server requires input from the caller before it continues.

    `body` is an `input_required` result (MCP 2026-07-28) for either protocol family. The caller
    continues with another call whose `extra` has `inputResponses` and this `requestState`.
    `approval` is the id of the approval that policy requests; empty for a request of a server.
    """

    body: bytes
    approval: str = ""

    def encode(self) -> bytes:
        """Return the wire form."""
        if self.approval:
            return b"v%s\n%s" % (self.approval.encode(), self.body)
        return b"q" + self.body


class TaskCreated(Struct, frozen=True):
    """The server continues in a task: a `task` result, or the older `{"task": …}`."""

    body: bytes

    def encode(self) -> bytes:
        """Return the wire form."""
        return b"t" + self.body


class CallError(Struct, frozen=True):
    """The call failed. An error crosses the bus as data, never as a pickled class."""

    error: ToolbusError

    def encode(self) -> bytes:
        """Return the wire form."""
        return b"f" + msgspec.json.encode(self.error.as_data())


FinalReply = CallResult | InputRequired | TaskCreated
CallNotification = Progress | Notification | StreamPaused
Reply = FinalReply | CallError
ReplyMessage = CallNotification | DeadlineExtended | Reply


def decode_reply(data: bytes) -> ReplyMessage:
    """Parse one reply message. Raises `ValueError` if the bytes are not a reply message."""
    kind, body = data[:1], data[1:]
    if kind == b"a":
        return CallResult(body)
    if kind == b"f":
        return CallError(ToolbusError.from_data(msgspec.json.decode(body)))
    if kind == b"n":
        head, _, params = body.partition(b"\n")
        method, _, number = head.partition(b" ")
        return Notification(method.decode(), params, int(number or 0))
    if kind == b"e":
        return DeadlineExtended(float(body))
    if kind == b"w":
        return StreamPaused(int(body))
    known = _OTHERS.get(kind)
    if known is None:
        raise ValueError(f"unknown reply message {kind!r}")
    return known(body)


def _approval(body: bytes) -> InputRequired:
    approval, _, rest = body.partition(b"\n")
    return InputRequired(rest, approval.decode())


_OTHERS: dict[bytes, Callable[[bytes], ReplyMessage]] = {
    b"p": Progress,
    b"q": InputRequired,
    b"v": _approval,
    b"t": TaskCreated,
    b"s": lambda body: CallResult(b"", int(body)),
}


def final_reply(reply: Reply) -> FinalReply:
    """Return the reply of a call that succeeded. Raises the `ToolbusError` of one that failed."""
    if not isinstance(reply, CallError):
        return reply
    error = reply.error
    try:
        raise error
    finally:
        # The error's traceback refers to this frame. Without this, the garbage collector would have
        # to find the cycle, and its pauses delay every call.
        del error, reply


class CallContext(Protocol):
    """The caller of one call, as its handler sees it. Messages arrive in order."""

    async def send(self, message: ReplyMessage) -> None:
        """Send a message before the final reply, which is the handler's return value.

        If the handler has returned None, another process or a later call of this method sends the
        final reply. Messages after the final reply are dropped.
        """
        ...
