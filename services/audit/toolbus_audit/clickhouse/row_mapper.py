"""Map a message of the stream to typed rows: each line becomes an event's row or a dead letter."""

import time
from hashlib import sha256
from operator import attrgetter
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from toolbus_common.contracts.events.base import subject_of

LONGEST_RAW = 65_536  # characters of an unreadable line that are kept

Text = Annotated[str, Meta(min_length=1)]
Natural = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Signed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Moment = Annotated[float, Meta(ge=0, le=4e9)]  # seconds since the epoch, within DateTime64


class EventRow(Struct, gc=False):
    """One row of `events`. What an event does not have stays empty; `detail` is the whole event."""

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
    trace_id: str = ""
    server: str = ""
    tool: str = ""
    method: str = ""
    family: str = ""
    ending: str = ""
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
        """Where it stands in the stream, and what it is: a stream begun anew reuses positions."""
        return self.stream_seq, self.line, self.id


class DeadRow(Struct, gc=False):
    """One row of `dead_letters`: a line nobody could read, and why."""

    at: float
    stream_seq: int
    line: int
    subject: str
    reason: str
    raw: str
    digest: str

    @property
    def position(self) -> tuple[int, int, str]:
        """Where it stands in the stream, and what it is."""
        return self.stream_seq, self.line, self.digest


class CheckpointRow(Struct, gc=False):
    """One row of `checkpoints`: how far a customer's log had come, signed. `at` is seconds."""

    customer: str
    stream: str
    size: int
    at: int
    to: int
    edge: tuple[str, ...]
    note: str


class CosignatureRow(Struct, gc=False):
    """One row of `cosignatures`: a checkpoint's note as one witness cosigned it."""

    customer: str
    stream: str
    size: int
    at: int
    witness: str
    note: str


Rows = list[EventRow] | list[DeadRow]
Written = Rows | list[CheckpointRow] | list[CosignatureRow]

_decode = msgspec.json.Decoder(EventRow).decode
_encoder = msgspec.json.Encoder()
_COLUMNS = {
    kind: kind.__struct_fields__ for kind in (EventRow, DeadRow, CheckpointRow, CosignatureRow)
}
_VALUES = {kind: attrgetter(*columns) for kind, columns in _COLUMNS.items()}


def read(
    subject: str, stream_seq: int, data: bytes, stream: str = ""
) -> tuple[list[EventRow], list[DeadRow]]:
    """Every line of one message, as a row or as a dead letter; none is passed over."""
    rows: list[EventRow] = []
    dead: list[DeadRow] = []
    for number, line in enumerate(data.split(b"\n")):
        try:
            row = _decode(line)
            row.detail = line.decode()
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            dead.append(_dead(subject, stream_seq, number, line, str(error)))
            continue
        row.stream, row.stream_seq, row.line = stream, stream_seq, number
        if row.event == "call.completed":
            row.sent = True
        rows.append(row)
    return rows, dead


def refused(row: EventRow, reason: str) -> DeadRow:
    """The dead letter of a row that the store would not take."""
    return _dead(
        subject_of(row.event, row.customer), row.stream_seq, row.line, row.detail.encode(), reason
    )


def columns(rows: Written) -> tuple[str, ...]:
    """The columns of these rows, in the order `encoded` writes them."""
    return _COLUMNS[type(rows[0])]


def encoded(rows: Written) -> bytes:
    """The rows as lines of JSON arrays: of ClickHouse's text formats the cheapest to read."""
    values = _VALUES[type(rows[0])]
    return _encoder.encode_lines([values(row) for row in rows])


def token(rows: Rows) -> str:
    """What marks this insert: the same rows have the same token, in any process, and others not.

    The ends in the stream are there to be read; the digest tells rows of one message apart.
    """
    positions = repr([row.position for row in rows]).encode()
    return f"{rows[0].stream_seq}-{rows[-1].stream_seq}-{sha256(positions).hexdigest()[:32]}"


def _dead(subject: str, stream_seq: int, line: int, raw: bytes, reason: str) -> DeadRow:
    return DeadRow(
        at=time.time(),
        stream_seq=stream_seq,
        line=line,
        subject=subject,
        reason=reason,
        raw=raw.decode("utf-8", "replace")[:LONGEST_RAW],
        digest=sha256(raw).hexdigest(),
    )
