"""Taking events out by command: one page of them at a time, as bytes of a format."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class EventsQuery(Query):
    """The next events from `since` and before `until` (seconds since the epoch), by time.

    `format` is jsonl, ocsf or parquet. Events of these names (patterns) and customers; none named
    are all. `after` is empty at first, then the `next` of the page before. Asked by operators.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.events"

    format: str = "jsonl"
    since: float = 0.0
    until: float = 4e9
    events: tuple[str, ...] = ()
    customers: tuple[str, ...] = ()
    after: str = ""


class EventsReply(Message):
    """One page: so many rows, and `total` in all (told with the first page only).

    Lines, or a whole Parquet file. With an empty `next` it was the last.
    """

    BODY: ClassVar[str | None] = "data"

    rows: int
    next: str = ""
    total: int = 0
    data: bytes = Field(default=b"", exclude=True, repr=False)
