"""Requests to audit to write rows that are missing in its tables, and to freeze its tables."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class BackfillRequest(Query):
    """Write the rows that are in the stream but not in the tables, from message `first` on.

    Operators send this query to audit. If `since` (seconds since the epoch) is set, the first
    message of that time or later replaces `first`. With `dead`, only messages with dead letters are
    read again.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.backfill"

    first: int = 1
    since: float = 0.0
    dead: bool = False


class BackfillLinesRequest(Query):
    """Write exported events that are missing in the table, one JSON line per event.

    Operators send this query to audit. Each line is an event as its producer published it. Events
    are identified by id, and have no position in a stream. Events of the last hour are skipped,
    because the stream can still deliver them.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.lines"

    lines: tuple[str, ...]


class BackfillReply(Message):
    """The result for one part of the stream or of an export.

    `lines` is the number of events, and `written` is the number of new rows. `unreadable` counts
    dead letters. `next` is the position to continue at, or 0 at the end. `until` is the last
    message that was read. Messages that audit has not acknowledged yet are skipped.
    """

    lines: int
    written: int
    unreadable: int
    next: int
    until: int


class FreezeRequest(Query):
    """Keep the present parts of the embedded tables as hard links, for a backup.

    Operators send this query to audit. The links are in `clickhouse/shadow/<name>` of the state
    directory, and the operator's command removes them.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.freeze"

    name: str = Field(pattern=r"^[a-z0-9]{1,64}$")


class FreezeReply(Message):
    """The frozen tables."""

    tables: tuple[str, ...]
