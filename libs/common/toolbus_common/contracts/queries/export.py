"""Export of events by a command: one page at a time, in one of several formats."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class EventsQuery(Query):
    """Return the next page of events from `since` and before `until`, ordered by time.

    Operators and policy send this query to audit. Times are in seconds since the epoch. `format` is
    jsonl, ocsf or parquet. `events` (patterns of names) and `customers` restrict the export. If
    they are empty, all events are exported. `after` is empty for the first page. For every further
    page it is `next` of the previous reply. `max_bytes` limits the data of a page.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.events"

    format: str = "jsonl"
    since: float = 0.0
    until: float = 4e9
    events: tuple[str, ...] = ()
    customers: tuple[str, ...] = ()
    after: str = ""
    max_bytes: int = 6 << 20


class EventsReply(Message):
    """One page of `rows` events as lines, or as a whole Parquet file.

    `total` is the number of all events (first page only). `next` is empty on the last page.
    """

    BODY: ClassVar[str | None] = "data"

    rows: int
    next: str = ""
    total: int = 0
    data: bytes = Field(default=b"", exclude=True, repr=False)
