"""Collection of a bundle's contents from audit: the checkpoints and events of a log."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query
from toolbus_common.contracts.queries.sql_text import quoted
from toolbus_common.errors import InvalidError
from toolbus_common.evidence import bundle
from toolbus_common.evidence.bundle import Opening, StoredCheckpoint

SECONDS = 20.0  # longer than audit's query timeout
PAGE = 500
_AFTER_ALL_LINES = 1 << 15
_LOOKS, _PAUSE_SECONDS = 40, 0.25


A = TypeVar("A", bound=Message)


class Queries(Protocol):
    """Sender of queries: over the bus, or to the administration API."""

    async def request(self, query: Query, answer: type[A], seconds: float = 5.0) -> A:
        """Send a query and return the reply. Raises `ToolbusError`."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A part of a customer's log: from its start or a checkpoint to the last checkpoint."""

    channel: Queries
    customer: str
    stream: str
    start: StoredCheckpoint | None
    statements: tuple[StoredCheckpoint, ...]
    cut: int = 0  # number of events at the log's start that were deleted because they expired

    @property
    def size(self) -> int:
        """The number of events in this part of the log."""
        return self.statements[-1].size - (self.start.size if self.start else 0)

    async def write(
        self,
        path: Path,
        advance: Callable[[], None] = lambda: None,
        opened: Opening | None = None,
    ) -> int:
        """Write the bundle and return the number of events. `advance` is called per event."""
        await self.settled()

        async def counted_lines() -> AsyncIterator[str]:
            async for line in self.lines():
                advance()
                yield line

        return await bundle.write(
            path,
            customer=self.customer,
            stream=self.stream,
            start=self.start,
            checkpoints=self.statements,
            events=counted_lines(),
            opened=opened,
        )

    async def settled(self) -> None:
        """Wait until the table has all signed events, for at most 10 seconds.

        Audit stores rows and checkpoints separately. If events are missing permanently, the bundle
        is written without them, and its verification reports them.
        """
        counted = f"SELECT count() FROM ({self._where(0, _AFTER_ALL_LINES, 'stream_seq')})"  # noqa: S608
        for _ in range(_LOOKS):
            ((count,),) = await _rows(self.channel, counted)
            if int(count) >= self.statements[-1].size - self.cut:
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def lines(self) -> AsyncIterator[str]:
        """Yield the lines of the log in stream order, including dead letters."""
        place = (self.start.to if self.start else 0), _AFTER_ALL_LINES
        while True:
            where = self._where(*place, "stream_seq, line, detail")
            rows = await _rows(self.channel, f"{where} ORDER BY stream_seq, line LIMIT {PAGE}")
            for _, _, line in rows:
                yield str(line)
            if len(rows) < PAGE:
                return
            place = int(rows[-1][0]), int(rows[-1][1])

    def _where(self, message: int, line: int, columns: str) -> str:
        """Return a query for the events after a position, up to the last checkpoint."""
        customer, until = quoted(self.customer), self.statements[-1].to
        within = f"(stream_seq, line) > ({message}, {line}) AND stream_seq <= {until}"
        return (
            f"SELECT * FROM (SELECT {columns} FROM events WHERE customer = {customer}"  # noqa: S608
            f" AND stream = {quoted(self.stream)} AND {within} UNION ALL"
            f" SELECT {columns.replace('detail', 'raw')} FROM dead_letters WHERE {within}"
            f" AND endsWith(subject, concat('.', {customer})))"
        )


async def gathered(channel: Queries, customer: str, since: str = "") -> Evidence:
    """Return a customer's newest log, from its start or from the last checkpoint before `since`.

    Raises:
        InvalidError: the log has no checkpoint, or audit cannot parse the time.

    """
    named = quoted(customer)
    newest = await _rows(
        channel,
        f"SELECT stream FROM checkpoints WHERE customer = {named} ORDER BY at DESC LIMIT 1",  # noqa: S608
    )
    if not newest:
        raise InvalidError(
            f"The log of '{customer}' has no checkpoint yet. Retry in some seconds, or "
            "name another customer; the table `checkpoints` has all logs."
        )
    stream = str(newest[0][0])
    statements = await _statements(channel, named, stream)
    start = await _size_at(channel, named, stream, since) if since else 0
    cut = await _cut(channel, named, stream)
    start = max(start, cut)
    before = [each for each in statements if each.size <= start]
    after = tuple(each for each in statements if each.size > start)
    if not after:
        raise InvalidError(
            f"The log of '{customer}' has no checkpoint after {since}; use an earlier time."
        )
    return Evidence(channel, customer, stream, before[-1] if before else None, after, cut)


async def _statements(channel: Queries, named: str, stream: str) -> list[StoredCheckpoint]:
    found: list[StoredCheckpoint] = []
    while True:
        rows = await _rows(
            channel,
            f"SELECT DISTINCT size, to, edge, note, at FROM checkpoints WHERE customer = {named}"  # noqa: S608
            f" AND stream = {quoted(stream)}"
            f" ORDER BY size, at, note LIMIT {PAGE} OFFSET {len(found)}",
        )
        found += [
            StoredCheckpoint(int(row[0]), int(row[1]), tuple(row[2]), str(row[3])) for row in rows
        ]
        if len(rows) < PAGE:
            return merged(found, await _cosigned(channel, named, stream))


async def _cosigned(channel: Queries, named: str, stream: str) -> list[str]:
    """Return the cosigned notes of a log; each has the signature of one witness."""
    found: list[str] = []
    while True:
        rows = await _rows(
            channel,
            f"SELECT DISTINCT size, at, witness, note FROM cosignatures WHERE customer = {named}"  # noqa: S608
            f" AND stream = {quoted(stream)}"
            f" ORDER BY size, at, witness, note LIMIT {PAGE} OFFSET {len(found)}",
        )
        found += [str(row[3]) for row in rows]
        if len(rows) < PAGE:
            return found


def merged(statements: list[StoredCheckpoint], cosigned: list[str]) -> list[StoredCheckpoint]:
    """Return the checkpoints, each with all its known signatures."""
    lines: dict[str, dict[str, None]] = {}
    for note in (*(each.note for each in statements), *cosigned):
        text, _, signatures = note.rpartition("\n\n")
        lines.setdefault(text, {}).update(dict.fromkeys(signatures.splitlines()))
    return [
        replace(each, note="\n".join([text, "", *lines[text], ""]))
        for each in statements
        for text in [each.note.rpartition("\n\n")[0]]
    ]


async def _size_at(channel: Queries, named: str, stream: str, since: str) -> int:
    """Return the size of the log's last checkpoint at a time, or 0 if there was none."""
    (row,) = await _rows(
        channel,
        f"SELECT max(size) FROM checkpoints WHERE customer = {named}"  # noqa: S608
        f" AND stream = {quoted(stream)}"
        f" AND at <= parseDateTimeBestEffort({quoted(since)}, 'UTC')",
    )
    return int(row[0] or 0)


async def _cut(channel: Queries, named: str, stream: str) -> int:
    """Return the number of events at the start of a log that were deleted because they expired.

    A checkpoint of that size exists; the log is verified from it.
    """
    (row,) = await _rows(
        channel,
        f"SELECT max(size) FROM log_truncations WHERE customer = {named}"  # noqa: S608
        f" AND stream = {quoted(stream)}",
    )
    return int(row[0] or 0)


async def _rows(channel: Queries, sql: str) -> tuple[tuple[Any, ...], ...]:
    return (
        await channel.request(AuditQuery(sql=sql, limit=PAGE, as_stored=True), RowsReply, SECONDS)
    ).rows
