"""Delete events after their retention time, so that the remaining events stay provable.

A customer's log is truncated at a checkpoint: the events that the checkpoint covers are deleted,
and the log starts after it. The checkpoint contains all data that proofs of later events need.
Events that no checkpoint covers are not deleted.
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
    """Store of event rows."""

    async def select(self, sql: str) -> Sequence[tuple[Any, ...]]:
        """Run a query of audit itself. Raises `StoreDownError`."""

    async def command(self, sql: str) -> None:
        """Run a command of audit itself to completion. Raises `StoreDownError`."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """New start of a log: after its first `size` events, up to stream sequence `to`."""

    customer: str
    stream: str
    size: int
    to: int
    days: int

    @property
    def log(self) -> str:
        """SQL condition for the rows of this log."""
        return f"customer = {quoted(self.customer)} AND stream = {quoted(self.stream)}"

    @property
    def rows(self) -> str:
        """SQL condition for the rows before the new start."""
        return f"{self.log} AND stream_seq <= {self.to}"


class Retention:
    """Deletion of expired events. `holds` returns the customers under a legal hold."""

    def __init__(
        self,
        store: Store,
        configured: Callable[[], Configuration],
        holds: Callable[[], frozenset[str]],
        publish: Callable[[Event], Awaitable[None]],
    ) -> None:
        self._store = store
        self._configured = configured
        self._holds = holds
        self._publish = publish

    async def run(self, ready: Callable[[], bool]) -> None:
        """Delete expired events every hour, if `ready` confirms current configuration and holds."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                if ready():
                    await self.apply(time())
            except (StoreDownError, BusDownError) as error:
                log.warning("retention.waiting", extra={"reason": str(error)})
            except Exception:
                log.exception("retention.internal_error")

    async def apply(self, now: float) -> list[Truncation]:
        """Delete expired events and return the truncations.

        Customers under a legal hold are skipped.
        """
        found = []
        for customer, stream in await self._logs():
            truncation = await self._due(customer, stream, now)
            if truncation is not None and customer not in self._holds():
                await self._truncate(truncation)
                found.append(truncation)
        await self._delete_unlogged(now)
        return found

    async def _logs(self) -> Sequence[tuple[Any, ...]]:
        return await self._store.select("SELECT DISTINCT customer, stream FROM checkpoints")

    async def _due(self, customer: str, stream: str, now: float) -> Truncation | None:
        """Return the truncation at the last checkpoint that is older than the retention time."""
        days = retention_days(self._configured(), customer)
        found = await self._store.select(
            f"SELECT size, to FROM checkpoints WHERE customer = {quoted(customer)}"  # noqa: S608
            f" AND stream = {quoted(stream)} AND at <= toDateTime({_cutoff(now, days)}, 'UTC')"
            " ORDER BY size DESC, to DESC LIMIT 1"
        )
        return (
            Truncation(customer, stream, int(found[0][0]), int(found[0][1]), days)
            if found
            else None
        )

    async def _truncate(self, truncation: Truncation) -> None:
        """Publish the event, record the truncation, then delete.

        All steps can be repeated after an interruption.
        """
        known = await self._store.select(
            f"SELECT max(size) FROM log_truncations WHERE {truncation.log}"  # noqa: S608
        )
        if int(known[0][0] or 0) < truncation.size:
            await self._publish(_event_of(truncation))
            await self._store.command(
                "INSERT INTO log_truncations (customer, stream, size, to, at) VALUES "  # noqa: S608
                f"({quoted(truncation.customer)}, {quoted(truncation.stream)},"
                f" {truncation.size}, {truncation.to}, now())"
            )
        await self._delete("events", truncation.rows)
        # Dead letters have no customer column; their subject ends with the customer.
        of_customer = f"endsWith(subject, {quoted('.' + truncation.customer)})"
        expired = f"at <= toDateTime({_cutoff(time(), truncation.days)}, 'UTC')"
        await self._delete(
            "dead_letters", f"{of_customer} AND stream_seq <= {truncation.to} AND {expired}"
        )

    async def _delete_unlogged(self, now: float) -> None:
        """Delete expired events without a stream. They belong to no log."""
        unlogged = await self._store.select(
            "SELECT DISTINCT customer FROM events WHERE stream = ''"
        )
        for (customer,) in unlogged:
            if customer not in self._holds():
                days = retention_days(self._configured(), customer)
                old = f"at <= toDateTime({_cutoff(now, days)}, 'UTC')"
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


def retention_days(configured: Configuration, customer: str) -> int:
    """Return the number of days for which a customer's events are retained."""
    found = configured.customers.get(customer)
    override = found.retention if found is not None else None
    return override or configured.audit.retention


def _cutoff(now: float, days: int) -> int:
    return max(int(now) - days * DAY, 0)


def _event_of(truncation: Truncation) -> EventsExpired:
    return EventsExpired(
        id=f"{truncation.customer}.{truncation.stream}.{truncation.size}.expired",
        at=time(),
        customer=truncation.customer,
        stream=truncation.stream,
        size=truncation.size,
        to=truncation.to,
        days=truncation.days,
    )
