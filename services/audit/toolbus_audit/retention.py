"""Deletes what is past its time, so that what is left stays provable.

A customer's log is cut at a statement: what was sealed by then is deleted, and the log goes on from
that statement, which has all the proof of the rest needs. What is not sealed is not deleted.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import time
from typing import Any, Protocol

from toolbus_audit.clickhouse.errors import StoreDownError
from toolbus_common.config import Configuration
from toolbus_common.contracts import Event, EventsExpired
from toolbus_common.contracts.queries.sql_text import quoted
from toolbus_common.errors import BusDownError

log = logging.getLogger(__name__)

EVERY_SECONDS = 3600.0
DAY = 86_400


class Store(Protocol):
    """What keeps the rows."""

    async def select(self, sql: str) -> Sequence[tuple[Any, ...]]:
        """The answer to our own statement. Raises `StoreDownError`."""

    async def command(self, sql: str) -> None:
        """Do what our own statement says, to its end. Raises `StoreDownError`."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a log is to begin: behind its first `size` events."""

    customer: str
    stream: str
    size: int
    to: int
    days: int

    @property
    def log(self) -> str:
        """The rows of this log, as a condition."""
        return f"customer = {quoted(self.customer)} AND stream = {quoted(self.stream)}"

    @property
    def rows(self) -> str:
        """Those of them that lie before it."""
        return f"{self.log} AND stream_seq <= {self.to}"


class Retention:
    """`declared` says how long, `holds` of whom nothing is deleted, `say` records an event."""

    def __init__(
        self,
        store: Store,
        declared: Callable[[], Configuration],
        holds: Callable[[], frozenset[str]],
        say: Callable[[Event], Awaitable[None]],
    ) -> None:
        self._store = store
        self._declared = declared
        self._holds = holds
        self._say = say

    async def run(self, ready: Callable[[], bool]) -> None:
        """Look every hour, while `ready` says that all that is declared and held is known."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                if ready():
                    await self.apply(time())
            except (StoreDownError, BusDownError) as error:
                log.warning("retention.waiting", extra={"reason": str(error)})
            except Exception:
                log.exception("retention.failed_inside")

    async def apply(self, now: float) -> list[Cut]:
        """Delete what is past its time now; where logs begin since. What is held is left."""
        found = []
        for customer, stream in await self._logs():
            cut = await self._due(customer, stream, now)
            if cut is not None and customer not in self._holds():
                await self._cut(cut)
                found.append(cut)
        await self._clear_unsealed(now)
        return found

    async def _logs(self) -> Sequence[tuple[Any, ...]]:
        return await self._store.select("SELECT DISTINCT customer, stream FROM checkpoints")

    async def _due(self, customer: str, stream: str, now: float) -> Cut | None:
        """The last statement that is itself past the time: all it covers is older still."""
        days = days_of(self._declared(), customer)
        found = await self._store.select(
            f"SELECT size, to FROM checkpoints WHERE customer = {quoted(customer)}"  # noqa: S608
            f" AND stream = {quoted(stream)} AND at <= toDateTime({_before(now, days)}, 'UTC')"
            " ORDER BY size DESC, to DESC LIMIT 1"
        )
        return Cut(customer, stream, int(found[0][0]), int(found[0][1]), days) if found else None

    async def _cut(self, cut: Cut) -> None:
        """Said first, then noted, then done: whatever was interrupted is done the next time."""
        known = await self._store.select(f"SELECT max(size) FROM cuts WHERE {cut.log}")  # noqa: S608
        if int(known[0][0] or 0) < cut.size:
            await self._say(_event_of(cut))
            await self._store.command(
                "INSERT INTO cuts (customer, stream, size, to, at) VALUES "  # noqa: S608
                f"({quoted(cut.customer)}, {quoted(cut.stream)}, {cut.size}, {cut.to}, now())"
            )
        await self._delete("events", cut.rows)
        # Lines that could be no row are of this log where their subject ends in its customer.
        ended = f"endsWith(subject, {quoted('.' + cut.customer)})"
        sealed = f"stream_seq <= {cut.to} AND at <= toDateTime({_before(time(), cut.days)}, 'UTC')"
        await self._delete("dead_letters", f"{ended} AND {sealed}")

    async def _clear_unsealed(self, now: float) -> None:
        """Events from before there was a seal belong to no log: they go by their own time."""
        unsealed = await self._store.select(
            "SELECT DISTINCT customer FROM events WHERE stream = ''"
        )
        for (customer,) in unsealed:
            if customer not in self._holds():
                days = days_of(self._declared(), customer)
                old = f"at <= toDateTime({_before(now, days)}, 'UTC')"
                await self._delete(
                    "events", f"stream = '' AND customer = {quoted(customer)} AND {old}"
                )

    async def _delete(self, table: str, condition: str) -> None:
        ((count,),) = await self._store.select(f"SELECT count() FROM {table} WHERE {condition}")  # noqa: S608
        if int(count):
            await self._store.command(
                f"ALTER TABLE {table} DELETE WHERE {condition} SETTINGS mutations_sync = 2"
            )
            log.info("retention.deleted", extra={"table": table, "rows": int(count)})


def days_of(declared: Configuration, customer: str) -> int:
    """How many days a customer's events are kept."""
    found = declared.customers.get(customer)
    own = found.retention if found is not None else None
    return own or declared.audit.retention


def _before(now: float, days: int) -> int:
    return max(int(now) - days * DAY, 0)


def _event_of(cut: Cut) -> EventsExpired:
    return EventsExpired(
        id=f"{cut.customer}.{cut.stream}.{cut.size}.expired",
        at=time(),
        customer=cut.customer,
        stream=cut.stream,
        size=cut.size,
        to=cut.to,
        days=cut.days,
    )
