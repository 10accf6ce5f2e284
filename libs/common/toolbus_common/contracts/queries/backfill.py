"""Requests to audit to write missing rows of its tables."""

from typing import ClassVar

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class BackfillRequest(Query):
    """Write the rows that the stream has and the tables lack, from message `first` on.

    Sent by operators, answered by audit. With `since` (seconds since the epoch), start at the first
    message of that time or later instead. With `dead`, only messages with dead letters are read
    again.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.backfill"

    first: int = 1
    since: float = 0.0
    dead: bool = False


class BackfillLinesRequest(Query):
    """Write events of an export that the table lacks, one JSON line per event.

    The lines are those that the producers wrote. Sent by operators, answered by audit. Events are
    identified by their ids, and have no position in a stream. Events of the last hour are skipped,
    because the stream may still deliver them.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.lines"

    lines: tuple[str, ...]


class BackfillReply(Message):
    """The result for part of the stream or of an export: its `lines`, and how many were `written`.

    `unreadable` counts dead letters. `next` is the position to continue at, 0 at the end. `until`
    is the last message that was read: messages that audit has not acknowledged are skipped.
    """

    lines: int
    written: int
    unreadable: int
    next: int
    until: int
