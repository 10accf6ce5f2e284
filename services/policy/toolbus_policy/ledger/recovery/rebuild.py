"""Rebuild lost counters from the events, in one replica, and open all of them together."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic, time
from typing import TypeVar

from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.concurrency import completely
from toolbus_common.contracts import (
    OpenCallsQuery,
    OpenCallsReply,
    RebuildReply,
    SpendingQuery,
    SpendingReply,
)
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.contracts.queries.base import CORRECTABLE_SECONDS
from toolbus_common.errors import InvalidError, LedgerRebuildingError, ToolbusError
from toolbus_common.nats.stream_reader import Contents, contents_of
from toolbus_common.nats.topology import EVENTS
from toolbus_common.service.service import Service
from toolbus_policy.ledger.generations import Generation, KnownGeneration
from toolbus_policy.ledger.ledger import Ledger
from toolbus_policy.ledger.recovery.rebuild_counters import (
    CounterRebuild,
    RequiredSum,
    limits_of,
    required_sums_of,
)
from toolbus_policy.ledger.recovery.repeated_messages import MessageMissingError, RepeatedMessages

log = logging.getLogger(__name__)

LOCK_SECONDS = 60.0
RETRY_SECONDS = 2.0
QUERY_SECONDS = 15.0
CATCH_UP_SECONDS = 60.0
DAY = 86_400.0
MIN_PIECE_SECONDS = 1.0  # a shorter period is not halved
AUDIT = "audit"
Reply = TypeVar("Reply", SpendingReply, OpenCallsReply)
Query = Callable[[float, float], Awaitable[Reply]]


@dataclass(slots=True)
class Rebuilder:
    """Rebuilder of lost counters. Spending of a customer is rejected until its counters are open.

    The steps have a fixed order. First the counters are closed, so that nothing more is reserved.
    Then the intents of calls in admission have time to reach the stream, and audit must store
    all events of the stream. Then the events are read. Outcomes that arrive in the meantime wait
    for the lock. Last, the new counters are written under a new generation and opened.
    """

    service: Service
    ledger: Ledger
    snapshot: Callable[[], ConfigSnapshot]
    quiet: float
    grace: float
    _queue: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    _queued: set[str] = field(default_factory=set)
    _store: str = ""  # the store that answers during a rebuild

    def enqueue(self, customer: str) -> None:
        """Queue a customer whose counters are lost."""
        if customer not in self._queued:
            self._queued.add(customer)
            self._queue.put_nowait(customer)

    async def run(self) -> None:
        """Rebuild queued customers forever, retrying until each succeeds."""
        while True:
            customer = await self._queue.get()
            self._queued.discard(customer)
            try:
                await self.rebuild(customer)
            except ToolbusError as error:
                self._note(customer, error.reason)
                self.service.spawn(self._later(customer))
            except Exception:
                log.exception("ledger.rebuild_failed", extra={"customer": customer})
                self.service.spawn(self._later(customer))

    async def rebuild(
        self, customer: str, *, force: bool = False, accept: bool = False, by: str = ""
    ) -> RebuildReply | None:
        """Rebuild a customer's counters. Return None if they are intact or never existed.

        Raises `ToolbusError` with the fix for an operator.
        """
        if await self._lost(customer, force=force) is None:
            return None
        token = secrets.token_hex(8)
        if not await self.ledger.store.lock(customer, token, LOCK_SECONDS):
            raise LedgerRebuildingError("Another replica is rebuilding the ledger; retry shortly.")
        try:
            # The replica that had the lock before may have opened the counters.
            known = await self._lost(customer, force=force)
            if known is None:
                return None
            return await self._rebuild(customer, known, token, accept=accept, by=by)
        finally:
            await completely(self.ledger.store.unlock(customer, token))

    async def _lost(self, customer: str, *, force: bool) -> KnownGeneration | None:
        """Return the generation to replace; None if its counters are intact or never existed."""
        known = await self.ledger.generations.known(customer)
        if known is None or not (force or await self.ledger.is_lost(customer, known)):
            self.ledger.rebuild_errors.pop(customer, None)
            return None
        return known

    def _note(self, customer: str, reason: str) -> None:
        """Log a reason once, not at each retry."""
        if self.ledger.rebuild_errors.get(customer) != reason:
            self.ledger.rebuild_errors[customer] = reason
            log.warning("ledger.not_rebuilt", extra={"customer": customer, "reason": reason})

    async def _hold(self, customer: str, token: str) -> None:
        """Extend the lock. Raises `LedgerRebuildingError` if this replica no longer has it."""
        if not await self.ledger.store.extend_lock(customer, token, LOCK_SECONDS):
            raise LedgerRebuildingError(
                "The counters were lost again during the rebuild; retry shortly."
            )

    async def _rebuild(
        self, customer: str, known: KnownGeneration, token: str, *, accept: bool, by: str
    ) -> RebuildReply:
        store, generations = self.ledger.store, self.ledger.generations
        log.warning("ledger.rebuilding", extra={"customer": customer})
        await store.close_counters(customer)
        await asyncio.sleep(self.quiet)
        rebuild, since = await self._counters(customer, known.generation, token, accept=accept)
        new = Generation(secrets.token_hex(4), since)
        await store.write_contents(customer, new.id, rebuild.contents)
        await self._hold(customer, token)
        how = "accepted" if accept else "rebuilt"
        if not await generations.renew(customer, known.generation, new, how, by):
            raise LedgerRebuildingError("Another replica has rebuilt the ledger; retry now.")
        if not await store.open_generation(customer, token, new.id):
            raise LedgerRebuildingError(
                "The counters were lost again during the rebuild; retry shortly."
            )
        self.ledger.rebuild_errors.pop(customer, None)
        log.warning("ledger.rebuilt", extra={"customer": customer, "epoch": new.id})
        self.service.spawn(store.delete_other_generations(customer, new.id))
        reserved = sum(level["reserved"] for level in rebuild.contents.levels.values())
        calls = len(rebuild.contents.records)
        return RebuildReply(epoch=new.id, calls=calls, reserved=reserved, since=since)

    async def _counters(
        self, customer: str, generation: Generation, token: str, *, accept: bool
    ) -> tuple[CounterRebuild, float]:
        """Return the counters computed from the events, and the time since which they count."""
        snapshot, now = self.snapshot(), time()
        limits = limits_of(customer, snapshot.configuration, snapshot.keys)
        rebuild = CounterRebuild(customer, limits, snapshot.configuration, now, self.grace)
        needs = required_sums_of(limits, now) or [RequiredSum(now, 0)]
        try:
            wanted = await contents_of(self.service.bus.client, EVENTS, subject_of("*.*", customer))
            await self._audit_has_all(customer, token)
            reach = await self._reach(customer, wanted, token)
        except ToolbusError as error:
            if not accept:
                raise LedgerRebuildingError(f"{error.reason} {_or_accept(customer)}") from error
            return rebuild, now
        missing = max(needs[0].start, generation.since)
        if reach > missing and not accept:
            raise LedgerRebuildingError(
                f"The stored events begin at {_timestamp(reach)}, but budgets need events from "
                f"{_timestamp(missing)}. {_or_accept(customer)}"
            )
        await self._fill(customer, rebuild, needs, generation, token)
        return rebuild, max(generation.since, min(reach, now)) if accept else generation.since

    async def _fill(
        self,
        customer: str,
        rebuild: CounterRebuild,
        needs: list[RequiredSum],
        generation: Generation,
        token: str,
    ) -> None:
        later = time() + CORRECTABLE_SECONDS
        for need in needs:
            start = max(need.start, generation.since)
            async for spending in self._pieces(self._spending(customer, need.step), start, later):
                rebuild.add_sums(need, spending.rows)
                await self._hold(customer, token)
        start = max(min(needs[0].start, time() - DAY), generation.since)
        late = time() - CORRECTABLE_SECONDS
        async for reply in self._pieces(self._open(customer, late), start, later):
            for call in reply.calls:
                rebuild.add_open_call(call)

    # -- audit -------------------------------------------------------------------------------

    async def _audit_has_all(self, customer: str, token: str) -> None:
        """Wait until audit has stored every event that is in the stream now."""
        newest, timeout = await self.service.bus.newest(EVENTS), monotonic() + CATCH_UP_SECONDS
        while await self.service.bus.finished(EVENTS, AUDIT) < newest:
            if monotonic() > timeout:
                raise LedgerRebuildingError(
                    "Audit has not stored every event yet; start audit, or see 'toolbus status'."
                )
            await self._hold(customer, token)
            await asyncio.sleep(0.2)

    async def _reach(self, customer: str, wanted: Contents, token: str) -> float:
        """Return the time of the oldest stored event.

        Raises `LedgerRebuildingError` if the store lacks messages that the stream has.
        """
        query = SpendingQuery(
            customer=customer,
            start=0,
            end=0,
            stream=wanted.created_at,
            first=wanted.first,
            last=wanted.last,
        )
        reply = await self.service.requests.request(query, SpendingReply, QUERY_SECONDS)
        self._store = reply.store
        if reply.messages < wanted.messages:
            await self._check_missing(customer, wanted, reply, token)
        return reply.since

    async def _check_missing(
        self, customer: str, wanted: Contents, reply: SpendingReply, token: str
    ) -> None:
        """Raise `LedgerRebuildingError` unless the store has all events of missing messages."""

        async def request(query: SpendingQuery) -> SpendingReply:
            await self._hold(customer, token)
            found = await self.service.requests.request(query, SpendingReply, QUERY_SECONDS)
            return self._same_store(found)

        try:
            search = RepeatedMessages(self.service.bus, request, customer)
            repeated, message = await search.count(wanted), 0
        except MessageMissingError as missing:
            repeated, message = 0, missing.sequence
        if reply.messages + repeated < wanted.messages:
            which = f" (message {message} for example)" if message else ""
            raise LedgerRebuildingError(
                f"The store of audit has {reply.messages} of the {wanted.messages} messages of "
                f"'{customer}' in the stream{which}, so budgets would be too high; run 'toolbus "
                "audit backfill', or see 'toolbus status'."
            )
        log.info("ledger.repeated_messages", extra={"customer": customer, "messages": repeated})

    def _same_store(self, reply: Reply) -> Reply:
        """Return the reply. Raises `LedgerRebuildingError` if another store has answered."""
        if reply.store != self._store:
            raise LedgerRebuildingError(
                "Audit services with different stores answered; end all but the one with the "
                "store of this installation."
            )
        return reply

    def _spending(self, customer: str, step: int) -> Query[SpendingReply]:
        async def request(start: float, end: float) -> SpendingReply:
            query = SpendingQuery(customer=customer, start=start, end=end, step=step, aliases=True)
            reply = await self.service.requests.request(query, SpendingReply, QUERY_SECONDS)
            return self._same_store(reply)

        return request

    def _open(self, customer: str, late: float) -> Query[OpenCallsReply]:
        async def request(start: float, end: float) -> OpenCallsReply:
            query = OpenCallsQuery(customer=customer, start=start, end=end, late=late)
            reply = await self.service.requests.request(query, OpenCallsReply, QUERY_SECONDS)
            return self._same_store(reply)

        return request

    async def _pieces(
        self, request: Query[Reply], start: float, end: float, length: float = DAY
    ) -> AsyncIterator[Reply]:
        """Yield one reply for each day; a period that is too large for audit is halved."""
        while start < end:
            until = min(start + length, end)
            reply = await _query_piece(request, start, until)
            if reply is not None:
                yield reply
            elif until - start > MIN_PIECE_SECONDS:
                async for piece in self._pieces(request, start, until, (until - start) / 2):
                    yield piece
            else:
                raise LedgerRebuildingError(
                    "Audit cannot return all events of one second in one reply."
                )
            start = until

    async def _later(self, customer: str) -> None:
        await asyncio.sleep(RETRY_SECONDS)
        self.enqueue(customer)


async def _query_piece(request: Query[Reply], start: float, end: float) -> Reply | None:
    """Return the reply, or None if it is too large for audit."""
    try:
        reply = await request(start, end)
    except InvalidError:
        return None
    return None if reply.more else reply


def _or_accept(customer: str) -> str:
    return f"An operator can accept the events that exist: 'toolbus ledger accept {customer}'."


def _timestamp(second: float) -> str:
    return datetime.fromtimestamp(min(second, 4e9), UTC).isoformat(timespec="seconds")
