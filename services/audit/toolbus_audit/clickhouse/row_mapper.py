"""Map stream messages to typed rows: each line becomes an event row or a dead letter."""

import time
from collections.abc import Iterable
from hashlib import sha256
from operator import attrgetter
from typing import Annotated, Any, NamedTuple, Protocol

import msgspec
from msgspec import Meta, Struct

from toolbus_common.contracts.events.base import subject_of

LONGEST_RAW = 65_536  # characters of an unreadable line that are stored
LAST_LINE = 65_535  # the greatest value of the column `line` (UInt16)

Text = Annotated[str, Meta(min_length=1)]
Natural = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Signed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Moment = Annotated[float, Meta(ge=0, le=4e9)]  # seconds since the epoch, within DateTime64


class Message(Protocol):
    """Message of the stream, with one event per line."""

    @property
    def subject(self) -> str:
        """The message's subject."""

    @property
    def sequence(self) -> int:
        """The message's sequence number in the stream."""

    @property
    def data(self) -> bytes:
        """The message's payload."""


class EventRow(Struct, gc=False):
    """Row of `events`. Missing fields are empty; `detail` is the whole event as JSON."""

    event: Text
    id: Text
    at: Moment
    producer: Text
    seq: Natural
    customer: Text
    team: str = ""
    user: str = ""
    environment: str = ""
    key: str = ""
    call_id: str = ""
    parent_id: str = ""
    suggested_by: str = ""
    guards: str = ""
    flow: str = ""
    trace_id: str = ""
    server: str = ""
    tool: str = ""
    method: str = ""
    family: str = ""
    result_type: str = ""
    approval: str = ""
    definition_digest: str = ""
    code: str = ""
    rule: str = ""
    shadow: tuple[str, ...] = ()
    reason: str = ""
    charge: Signed = 0
    latency_us: Signed = 0
    is_error: bool = False
    sent: bool = False
    stream: str = ""
    stream_seq: int = 0
    line: int = 0
    detail: str = ""

    @property
    def position(self) -> tuple[int, int, str]:
        """Sequence, line and id. The id is included because a re-created stream reuses numbers."""
        return self.stream_seq, self.line, self.id


class DeadRow(Struct, gc=False):
    """Row of `dead_letters`: a line that could not be parsed or stored, and the reason."""

    at: float
    stream_seq: int
    line: int
    subject: str
    reason: str
    raw: str
    digest: str

    @property
    def position(self) -> tuple[int, int, str]:
        """Sequence, line, and digest of the line."""
        return self.stream_seq, self.line, self.digest


class CheckpointRow(Struct, gc=False):
    """Row of `checkpoints`: a signed checkpoint of a customer's log. `at` is Unix seconds."""

    customer: str
    stream: str
    size: int
    at: int
    to: int
    edge: tuple[str, ...]
    note: str


class CosignatureRow(Struct, gc=False):
    """Row of `cosignatures`: a checkpoint's note as cosigned by one witness."""

    customer: str
    stream: str
    size: int
    at: int
    witness: str
    note: str


Rows = list[EventRow] | list[DeadRow]
Written = Rows | list[CheckpointRow] | list[CosignatureRow]


class Columns(NamedTuple):
    """Rows in columnar form: per column its name, its ClickHouse type, and one value per row."""

    names: list[str]
    types: list[str]
    values: list[list[Any]]


_decode = msgspec.json.Decoder(EventRow).decode
# ClickHouse types by Python type. ClickHouse casts values to the column's own type, for example
# `LowCardinality`.
_TYPES = {
    str: "String",
    int: "Int64",
    bool: "Bool",
    float: "DateTime64(6, 'UTC')",
    tuple: "Array(String)",
}


def read(
    subject: str, stream_seq: int, data: bytes, stream: str = ""
) -> tuple[list[EventRow], list[DeadRow]]:
    """Map every line of one message to an event row or a dead letter; no line is skipped.

    If the message has more than `LAST_LINE + 1` lines, all lines from number `LAST_LINE` on are one
    dead letter, because a greater line number would overflow its column.
    """
    rows: list[EventRow] = []
    dead: list[DeadRow] = []
    *lines, last = data.split(b"\n", LAST_LINE)
    if b"\n" not in last:
        lines.append(last)
    for number, line in enumerate(lines):
        try:
            row = _decode(line)
            row.detail = line.decode()
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            dead.append(_dead_row(subject, stream_seq, number, line, str(error)))
            continue
        row.stream, row.stream_seq, row.line = stream, stream_seq, number
        if row.event == "call.completed":
            row.sent = True
        rows.append(row)
    if b"\n" in last:
        reason = f"the message has more than {LAST_LINE + 1} lines; these were not read"
        dead.append(_dead_row(subject, stream_seq, LAST_LINE, last, reason))
    return rows, dead


def read_messages(messages: Iterable[Message], stream: str) -> tuple[list[EventRow], list[DeadRow]]:
    """Map every line of these messages, in order."""
    rows: list[EventRow] = []
    dead: list[DeadRow] = []
    for message in messages:
        good, bad = read(message.subject, message.sequence, message.data, stream)
        rows += good
        dead += bad
    return rows, dead


def rejected_row(row: EventRow, reason: str) -> DeadRow:
    """Return the dead letter for a row that the store rejected."""
    return _dead_row(
        subject_of(row.event, row.customer), row.stream_seq, row.line, row.detail.encode(), reason
    )


def columns(rows: Written) -> Columns:
    """Return the columns of these rows of one kind.

    Columns that are empty in every row are left out: ClickHouse fills them with the same default.
    """
    found = Columns([], [], [])
    for name in rows[0].__struct_fields__:
        values = list(map(attrgetter(name), rows))
        if any(values):
            kind = type(values[0])
            found.names.append(name)
            found.types.append(_TYPES[kind])
            found.values.append(list(map(_microseconds, values)) if kind is float else values)
    return found


def token(rows: Rows) -> str:
    """Return the deduplication token of an insert, a function of the rows' positions alone.

    The first and last sequence numbers help to read logs; the digest makes the token unique.
    """
    positions = repr([row.position for row in rows]).encode()
    return f"{rows[0].stream_seq}-{rows[-1].stream_seq}-{sha256(positions).hexdigest()[:32]}"


def _dead_row(subject: str, stream_seq: int, line: int, raw: bytes, reason: str) -> DeadRow:
    return DeadRow(
        at=time.time(),
        stream_seq=stream_seq,
        line=line,
        subject=subject,
        reason=reason,
        raw=raw.decode("utf-8", "replace")[:LONGEST_RAW],
        digest=sha256(raw).hexdigest(),
    )


def _microseconds(at: float) -> int:
    """Return a time in whole microseconds, never later than the event.

    ClickHouse cuts off further digits of a time in text. Budgets are rebuilt from events since an
    exact time, so a time that is rounded up would be missing.
    """
    found = round(at * 1e6)
    return found - 1 if found / 1e6 > at else found
