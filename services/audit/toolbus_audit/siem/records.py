"""What a sink is told of a message of the stream: its events, in the form the sink wants. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from toolbus_audit.clickhouse.row_mapper import Moment
from toolbus_audit.export import ocsf
from toolbus_common.config import Sink
from toolbus_common.contracts.events.base import parse_subject
from toolbus_common.nats.stream_reader import StreamEntry


@dataclass(frozen=True, slots=True)
class Record:
    """One event: `sequence` is its message's place, `body` what is told, in one line of JSON."""

    sequence: int
    id: str
    event: str
    at: float
    body: bytes


class _Head(msgspec.Struct):
    id: str
    at: Moment


_head = msgspec.json.Decoder(_Head).decode


def records_of(sink: Sink, kept: Sequence[StreamEntry]) -> tuple[list[Record], int]:
    """What the sink wants of these messages, and how many lines of it nobody could read."""
    records: list[Record] = []
    unreadable = 0
    for message in kept:
        # Every line of a message is of the name and the customer in its subject.
        event, customer = parse_subject(message.subject)
        if not sink.wants(event, customer):
            continue
        for line in message.data.split(b"\n"):
            try:
                head = _head(line)
                body = ocsf.encoded(line) if sink.format == "ocsf" else line
            except (msgspec.MsgspecError, ValueError, RecursionError):
                unreadable += 1
                continue
            records.append(Record(message.sequence, head.id, event, head.at, body))
    return records, unreadable
