"""The frames of one call's answer: any number of progress frames, then one ending."""

from dataclasses import dataclass

import msgspec

from toolbus_common.errors import ToolbusError


@dataclass(frozen=True, slots=True)
class Progressed:
    """The upstream says how far it is; `body` is the raw JSON of the notification's params."""

    body: bytes

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return b"p" + self.body


@dataclass(frozen=True, slots=True)
class Answered:
    """The result, as raw JSON already in the form the caller's era expects."""

    body: bytes

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return b"a" + self.body


@dataclass(frozen=True, slots=True)
class Failed:
    """The call ended without a result. A failure on the bus is data, never a pickled class."""

    error: ToolbusError

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return b"f" + msgspec.json.encode(self.error.as_data())


Frame = Progressed | Answered | Failed


def decode_frame(data: bytes) -> Frame:
    """Read one frame. Raises `ValueError` for bytes that are no frame."""
    kind, body = data[:1], data[1:]
    if kind == b"a":
        return Answered(body)
    if kind == b"p":
        return Progressed(body)
    if kind == b"f":
        return Failed(ToolbusError.from_data(msgspec.json.decode(body)))
    raise ValueError(f"unknown frame {kind!r}")
