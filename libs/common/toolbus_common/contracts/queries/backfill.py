"""Questions that make audit write what its tables lack."""

from typing import ClassVar

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class BackfillRequest(Query):
    """Write what the stream has and the tables lack, from message `first` on. Heard by audit.

    `since` (seconds since the epoch) begins with the first message kept then or later instead.
    With `dead` only messages with dead letters are read: what was unreadable may no longer be.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.backfill"

    first: int = 1
    since: float = 0.0
    dead: bool = False


class BackfillLinesRequest(Query):
    """Write events of an export that the table lacks, a line each as their producers wrote them.

    Heard by audit. They are told apart by their ids, and have no place in a stream. Events of the
    last hour are passed over: they may be on their way.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.lines"

    lines: tuple[str, ...]


class BackfillReply(Message):
    """One stretch of the stream, or of an export: its lines, and how many were written only now.

    `unreadable` are dead letters. `next` is where to go on, 0 at the end. Messages that audit has
    not acknowledged are left to it; the last of those that were read is `until`.
    """

    lines: int
    written: int
    unreadable: int
    next: int
    until: int
