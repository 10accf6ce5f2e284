"""Lost counters are made anew from the events: by one replica, whole, and opened at once."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic, time
from typing import TypeVar

from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.contracts import (
    OpenCallsQuery,
    OpenCallsReply,
    RebuildReply,
    SpendingQuery,
    SpendingReply,
)
from toolbus_common.errors import InvalidError, LedgerRebuildingError, ToolbusError
from toolbus_common.nats.topology import EVENTS
from toolbus_common.service.service import Service
from toolbus_policy.ledger.epochs import Epoch, Known
from toolbus_policy.ledger.ledger import Ledger
from toolbus_policy.ledger.recovery.rebuild_counters import (
    CORRECTABLE,
    Need,
    Restoring,
    limits_of,
    needs_of,
)

log = logging.getLogger(__name__)

LOCK_SECONDS = 60.0
AGAIN_SECONDS = 2.0
ASK_SECONDS = 15.0
CATCH_UP_SECONDS = 60.0
DAY = 86_400.0
SHORTEST = 1.0  # seconds of events that are not divided any further
AUDIT = "audit"
Told = TypeVar("Told", SpendingReply, OpenCallsReply)
Ask = Callable[[float, float], Awaitable[Told]]


@dataclass(slots=True)
class Rebuilder:
    """Deals with customers whose counters were lost; spending in them is refused meanwhile.

    Order is what makes it safe. The book is closed first, so nothing more is reserved; then what
    was being decided gets time to reach the stream; then audit must have all the stream has. Only
    then the events are read. Outcomes that come meanwhile wait for the lock. The new counters lie
    under a new epoch, unseen until the book names it.
    """

    service: Service
    ledger: Ledger
    snapshot: Callable[[], ConfigSnapshot]
    quiet: float
    grace: float
    _lost: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    _known: set[str] = field(default_factory=set)

    def lose(self, customer: str) -> None:
        """Hear that a customer's counters are not ours."""
        if customer not in self._known:
            self._known.add(customer)
            self._lost.put_nowait(customer)

    async def work(self) -> None:
        """Without end: rebuild what was lost, trying again until it is done."""
        while True:
            customer = await self._lost.get()
            self._known.discard(customer)
            try:
                await self.rebuild(customer)
            except ToolbusError as error:
                self.ledger.why_lost[customer] = error.reason
                log.warning(
                    "ledger.not_rebuilt", extra={"customer": customer, "reason": error.reason}
                )
                self.service.spawn(self._later(customer))
            except Exception:
                log.exception("ledger.rebuild_failed", extra={"customer": customer})
                self.service.spawn(self._later(customer))

    async def rebuild(
        self, customer: str, *, force: bool = False, accept: bool = False, by: str = ""
    ) -> RebuildReply | None:
        """Make a customer's counters anew; None when they are there, or never were.

        Raises `ToolbusError` saying what an operator can do.
        """
        known = await self.ledger.epochs.known(customer)
        if known is None or not (force or await self.ledger.is_lost(customer, known)):
            self.ledger.why_lost.pop(customer, None)
            return None
        token = secrets.token_hex(8)
        if not await self.ledger.store.lock(customer, token, LOCK_SECONDS):
            raise LedgerRebuildingError("Another replica rebuilds it: retry shortly.")
        try:
            return await self._rebuild(customer, known, token, accept=accept, by=by)
        finally:
            await self.ledger.store.unlock(customer, token)

    async def _rebuild(
        self, customer: str, known: Known, token: str, *, accept: bool, by: str
    ) -> RebuildReply:
        store, epochs = self.ledger.store, self.ledger.epochs
        log.warning("ledger.rebuilding", extra={"customer": customer})
        await store.end(customer)
        await asyncio.sleep(self.quiet)
        restoring, since = await self._restored(customer, known.epoch, accept=accept)
        new = Epoch(secrets.token_hex(4), since)
        await store.hold(customer, LOCK_SECONDS)
        await store.fill(customer, new.id, restoring.contents)
        how = "accepted" if accept else "rebuilt"
        if not await epochs.renew(customer, known.epoch, new, how, by):
            raise LedgerRebuildingError("Another replica rebuilt it: retry now.")
        if not await store.open(customer, token, new.id):
            raise LedgerRebuildingError("It was lost once more meanwhile: retry shortly.")
        self.ledger.why_lost.pop(customer, None)
        log.warning("ledger.rebuilt", extra={"customer": customer, "epoch": new.id})
        self.service.spawn(store.forget(customer, new.id))
        held = sum(level["held"] for level in restoring.contents.levels.values())
        calls = len(restoring.contents.records)
        return RebuildReply(epoch=new.id, calls=calls, held=held, since=since)

    async def _restored(
        self, customer: str, epoch: Epoch, *, accept: bool
    ) -> tuple[Restoring, float]:
        """What the events say, and since when they say it."""
        snapshot, now = self.snapshot(), time()
        limits = limits_of(customer, snapshot.declaration, snapshot.keys)
        restoring = Restoring(customer, limits, now, self.grace)
        needs = needs_of(limits, now) or [Need(now, 0)]
        try:
            await self._audit_has_all(customer)
            reach = await self._reach(customer)
        except ToolbusError as error:
            if not accept:
                raise LedgerRebuildingError(f"{error.reason} {_or_accept(customer)}") from error
            return restoring, now
        missing = max(needs[0].start, epoch.since)
        if reach > missing and not accept:
            raise LedgerRebuildingError(
                f"The events reach back to {_moment(reach)} only, its budgets to "
                f"{_moment(missing)}. {_or_accept(customer)}"
            )
        await self._fill(customer, restoring, needs, epoch)
        return restoring, max(epoch.since, min(reach, now)) if accept else epoch.since

    async def _fill(
        self, customer: str, restoring: Restoring, needs: list[Need], epoch: Epoch
    ) -> None:
        later = time() + CORRECTABLE
        for need in needs:
            start = max(need.start, epoch.since)
            async for spending in self._pieces(self._spending(customer, need.step), start, later):
                restoring.spent(need, spending.rows)
                await self.ledger.store.hold(customer, LOCK_SECONDS)
        start = max(min(needs[0].start, time() - DAY), epoch.since)
        late = time() - CORRECTABLE
        async for told in self._pieces(self._open(customer, late), start, later):
            for call in told.calls:
                restoring.still_open(call)

    # -- audit -------------------------------------------------------------------------------

    async def _audit_has_all(self, customer: str) -> None:
        """Return once audit keeps every event that is in the stream now."""
        newest, give_up = await self.service.bus.newest(EVENTS), monotonic() + CATCH_UP_SECONDS
        while await self.service.bus.finished(EVENTS, AUDIT) < newest:
            if monotonic() > give_up:
                raise LedgerRebuildingError(
                    "Audit has not yet taken every event; start it, or see 'toolbus status'."
                )
            await self.ledger.store.hold(customer, LOCK_SECONDS)
            await asyncio.sleep(0.2)

    async def _reach(self, customer: str) -> float:
        asked = SpendingQuery(customer=customer, start=0, end=0)
        return (await self.service.requests.ask(asked, SpendingReply, ASK_SECONDS)).since

    def _spending(self, customer: str, step: int) -> Ask[SpendingReply]:
        async def ask(start: float, end: float) -> SpendingReply:
            asked = SpendingQuery(customer=customer, start=start, end=end, step=step)
            return await self.service.requests.ask(asked, SpendingReply, ASK_SECONDS)

        return ask

    def _open(self, customer: str, late: float) -> Ask[OpenCallsReply]:
        async def ask(start: float, end: float) -> OpenCallsReply:
            asked = OpenCallsQuery(customer=customer, start=start, end=end, late=late)
            return await self.service.requests.ask(asked, OpenCallsReply, ASK_SECONDS)

        return ask

    async def _pieces(
        self, ask: Ask[Told], start: float, end: float, length: float = DAY
    ) -> AsyncIterator[Told]:
        """Answers for a day each; where one is too large for audit, for halves of it."""
        while start < end:
            until = min(start + length, end)
            told = await _whole(ask, start, until)
            if told is not None:
                yield told
            elif until - start > SHORTEST:
                async for piece in self._pieces(ask, start, until, (until - start) / 2):
                    yield piece
            else:
                raise LedgerRebuildingError("Audit cannot tell even one second's events at once.")
            start = until

    async def _later(self, customer: str) -> None:
        await asyncio.sleep(AGAIN_SECONDS)
        self.lose(customer)


async def _whole(ask: Ask[Told], start: float, end: float) -> Told | None:
    """The answer, or None when it is too large for audit."""
    try:
        told = await ask(start, end)
    except InvalidError:
        return None
    return None if told.more else told


def _or_accept(customer: str) -> str:
    return f"An operator can have it count from what there is: 'toolbus ledger accept {customer}'."


def _moment(second: float) -> str:
    return datetime.fromtimestamp(min(second, 4e9), UTC).isoformat(timespec="seconds")
