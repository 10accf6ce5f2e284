"""Records for a sink: the selected events of stream messages in the sink's format (no I/O)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from toolbus_audit.clickhouse.row_mapper import Moment
from toolbus_audit.export import ocsf
from toolbus_common.contracts.events.base import parse_subject
from toolbus_common.nats.stream_reader import StreamEntry


@dataclass(frozen=True, slots=True)
class Record:
    """Event to send: the sequence of its message, and the body as one line of JSON."""

    sequence: int
    id: str
    event: str
    at: float
    body: bytes


class _Head(msgspec.Struct):
    id: str
    at: Moment


_head = msgspec.json.Decoder(_Head).decode


class Selection(Protocol):
    """The events that a receiver wants, and their format."""

    @property
    def begin(self) -> str:
        """`now`, or `oldest` to begin with the oldest message of the stream."""

    @property
    def format(self) -> str:
        """`jsonl` or `ocsf`."""

    def wants(self, event: str, customer: str) -> bool:
        """Return whether an event of a customer is sent."""


def records_of(sink: Selection, messages: Sequence[StreamEntry]) -> tuple[list[Record], int]:
    """Return the records that the sink selects, and the number of unreadable lines."""
    records: list[Record] = []
    unreadable = 0
    for message in messages:
        # All lines of a message have the event name and customer of its subject.
        event, customer = parse_subject(message.subject)
        if not sink.wants(event, customer):
            continue
        for line in message.data.split(b"\n"):
            try:
                head = _head(line)
                body = ocsf.encode_ocsf(line) if sink.format == "ocsf" else line
            except (msgspec.MsgspecError, ValueError, RecursionError):
                unreadable += 1
                continue
            records.append(Record(message.sequence, head.id, event, head.at, body))
    return records, unreadable
