"""The frames of one call's answer: any number of notifications, then one ending."""

from typing import Protocol

import msgspec
from msgspec import Struct

from toolbus_common.errors import ToolbusError


class Progress(Struct, frozen=True):
    """The upstream says how far it is; `body` is the raw JSON of the notification's params."""

    body: bytes

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return b"p" + self.body


class DeadlineExtended(Struct, frozen=True):
    """The call may take longer: its deadline is now `deadline`, in seconds since the epoch."""

    deadline: float

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return b"e%r" % self.deadline


class Notification(Struct, frozen=True):
    """The upstream says something else about this call; `body` is the notification's raw params."""

    method: str
    body: bytes

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return b"n%b\n%b" % (self.method.encode(), self.body)


class StreamPaused(Struct, frozen=True):
    """The upstream closed its stream before the answer, to be asked again after `milliseconds`."""

    milliseconds: int

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return b"w%d" % self.milliseconds


class CallResult(Struct, frozen=True):
    """The result, as raw JSON already in the form the caller's family expects."""

    body: bytes

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return b"a" + self.body


class InputRequired(Struct, frozen=True):
    """The server needs something of the caller first.

    `body` is an `input_required` result (MCP 2026-07-28), whatever the families on either side; the
    caller answers with another call, whose `extra` has `inputResponses` and this `requestState`.
    """

    body: bytes

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return b"q" + self.body


class TaskCreated(Struct, frozen=True):
    """The server goes on by itself: a `task` result, or the older `{"task": …}`."""

    body: bytes

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return b"t" + self.body


class CallError(Struct, frozen=True):
    """The call ended without a result. A failure on the bus is data, never a pickled class."""

    error: ToolbusError

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return b"f" + msgspec.json.encode(self.error.as_data())


FinalReply = CallResult | InputRequired | TaskCreated
CallNotification = Progress | Notification | StreamPaused
ReplyMessage = CallNotification | DeadlineExtended | FinalReply | CallError


def decode_reply(data: bytes) -> ReplyMessage:
    """Read one frame. Raises `ValueError` for bytes that are no frame."""
    kind, body = data[:1], data[1:]
    if kind == b"a":
        return CallResult(body)
    if kind == b"f":
        return CallError(ToolbusError.from_data(msgspec.json.decode(body)))
    if kind == b"n":
        method, _, params = body.partition(b"\n")
        return Notification(method.decode(), params)
    if kind == b"e":
        return DeadlineExtended(float(body))
    if kind == b"w":
        return StreamPaused(int(body))
    known = _OTHERS.get(kind)
    if known is None:
        raise ValueError(f"unknown frame {kind!r}")
    return known(body)


_OTHERS: dict[bytes, type[Progress | InputRequired | TaskCreated]] = {
    b"p": Progress,
    b"q": InputRequired,
    b"t": TaskCreated,
}


class ReplyChannel(Protocol):
    """Where the frames of one call's answer go."""

    @property
    def address(self) -> str:
        """The subject for services in other processes."""
        ...

    async def send(self, frame: ReplyMessage) -> None:
        """Say one frame."""
        ...
