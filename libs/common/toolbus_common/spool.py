"""A bounded file of facts not yet acknowledged: nothing is lost while the bus is down."""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEAD = struct.Struct(">HHI")  # lengths of subject, message id and payload


class SpoolFullError(Exception):
    """The spool may not grow further."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message for the stream. The id makes a second copy harmless."""

    subject: str
    message_id: str
    payload: bytes

    def encode(self) -> bytes:
        """The record on disk."""
        subject, message_id = self.subject.encode(), self.message_id.encode()
        head = _HEAD.pack(len(subject), len(message_id), len(self.payload))
        return head + subject + message_id + self.payload


class Spool:
    """Appends with fsync, replays in order, and is emptied once all of it is acknowledged."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._path = path
        self._most = most_bytes

    def append(self, envelopes: list[Envelope]) -> None:
        """Write through to the disk. Raises `SpoolFullError` before it would pass its bound."""
        data = b"".join(envelope.encode() for envelope in envelopes)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            if file.tell() + len(data) > self._most:
                raise SpoolFullError(f"{self._path} would pass {self._most} bytes")
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def replay(self) -> Iterator[Envelope]:
        """What was written; a record torn by a crash ends the replay, it was never promised."""
        data = self._path.read_bytes() if self._path.exists() else b""
        at = 0
        while at + _HEAD.size <= len(data):
            subject, message_id, payload = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            if at + subject + message_id + payload > len(data):
                return
            yield Envelope(
                data[at : at + subject].decode(),
                data[at + subject : at + subject + message_id].decode(),
                data[at + subject + message_id : at + subject + message_id + payload],
            )
            at += subject + message_id + payload

    def clear(self) -> None:
        """Everything in it is in the stream now."""
        self._path.unlink(missing_ok=True)
