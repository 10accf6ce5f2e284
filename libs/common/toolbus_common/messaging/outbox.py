"""File of events that the stream has not acknowledged, so that no event is lost."""

import fcntl
import os
import struct
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from toolbus_common.nats.connection import Envelope

_HEAD = struct.Struct(">HHI")  # lengths of subject, message id and payload


def record_of(envelope: Envelope) -> bytes:
    """Return the record of an envelope in the file."""
    subject, message_id = envelope.subject.encode(), envelope.message_id.encode()
    head = _HEAD.pack(len(subject), len(message_id), len(envelope.payload))
    return head + subject + message_id + envelope.payload


class OutboxFullError(Exception):
    """The outbox file would exceed its maximum size."""


class Outbox:
    """File of envelopes. They are appended with fsync and replayed in their order.

    Replicas that share a directory have separate files, which are locked while their process runs.
    A process that opens the outbox takes over the records of processes that have ended.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._maximum = max_bytes
        self._file = -1
        self._end = 0  # end of the last complete record; a partial record after it is overwritten

    def append(self, envelopes: list[Envelope]) -> None:
        """Write envelopes to disk, and wait until they are durable.

        Raises `OutboxFullError` if the file would exceed its maximum size.
        """
        self._open()
        data = b"".join(record_of(envelope) for envelope in envelopes)
        if self._end + len(data) > self._maximum:
            raise OutboxFullError(f"{self._path} would exceed {self._maximum} bytes")
        os.ftruncate(self._file, self._end)
        view = memoryview(data)
        at = self._end
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written
        os.fsync(self._file)
        self._end = at

    def replay(self) -> Iterator[Envelope]:
        """Yield the stored envelopes.

        The replay ends at a record that a crash left incomplete. Its event was never reported as
        durable.
        """
        self._open()
        yield from _records(_content(self._file))

    def clear(self) -> None:
        """Remove all records, because the stream has them."""
        self._open()
        os.ftruncate(self._file, 0)
        self._end = 0

    def close(self) -> None:
        """Close the file, so that another process can take over its records."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        if self._file >= 0:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for number in count():
            self._file = _locked(self._path.with_name(f"{self._path.name}.{number}"))
            if self._file >= 0:
                break
        self._end = sum(len(record_of(record)) for record in _records(_content(self._file)))
        self._take_over_abandoned()

    def _take_over_abandoned(self) -> None:
        for path in sorted(self._path.parent.glob(f"{self._path.name}.*")):
            file = _locked(path)
            if file < 0:
                continue
            try:
                records = list(_records(_content(file)))
                if records:
                    self.append(records)
                    os.ftruncate(file, 0)
            except OutboxFullError:
                pass  # the records stay for the next process that opens the outbox
            finally:
                os.close(file)


def _locked(path: Path) -> int:
    """Return the descriptor of a file that is opened and locked.

    Return -1 if another process holds the lock.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return -1
    return file


def _content(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


def _records(data: bytes) -> Iterator[Envelope]:
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
