"""The policy room: may this key make this call, and who pays?

hears   CallRequested; the outcomes CallCompleted and CallFailed
says    CallAdmitted (to executor); the facts CallAllowed, CallDenied, CallFailed, LedgerOpened
asks    audit what was spent, when counters were lost
answers LedgerAsked, RebuildAsked
owns    the ledger in Redis, its epochs in the bucket tb_ledger
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from toolbus_common.bus import Change
from toolbus_common.contracts import CallRequested, LedgerAsked, Listing, RebuildAsked
from toolbus_common.exchange import Exchange, Reply
from toolbus_common.provision import CATALOGUE, CONFIG, LEDGER
from toolbus_common.room import Room
from toolbus_common.snapshot import Directory, Snapshot
from toolbus_policy.clerk import Clerk
from toolbus_policy.epochs import BusEpochs, Marks
from toolbus_policy.gate import Gate
from toolbus_policy.ledger import Ledger
from toolbus_policy.rebuilding import Rebuilder
from toolbus_policy.rules import Judge
from toolbus_policy.ruling import Rulings
from toolbus_policy.settings import Settings
from toolbus_policy.settlement import Settlement

log = logging.getLogger(__name__)

PING_SECONDS = 2.0
MARK_SECONDS = 1.0


class Bench:
    """Seats the judge: a new one for every change of configuration or catalogue."""

    def __init__(self) -> None:
        self._directory = Directory()
        self._directory.on_change.append(lambda _snapshot: self._seat())
        self._catalogue: dict[str, Listing] = {}
        self._rulings = Rulings()
        self.judge = Judge(self._directory.now, self._catalogue)

    def hear_config(self, change: Change | None) -> None:
        """Take one change of the configuration."""
        self._directory.hear(change)

    def hear_catalogue(self, change: Change | None) -> None:
        """Take one change of the catalogue."""
        if change is not None and change.value is not None:
            self._catalogue[change.key] = Listing.decode(change.value)
        elif change is not None:
            self._catalogue.pop(change.key, None)
        self._seat()

    @property
    def snapshot(self) -> Snapshot:
        """The configuration now."""
        return self._directory.now

    def _seat(self) -> None:
        snapshot = self._directory.now
        self.judge = Judge(snapshot, self._catalogue, self._rulings.of(snapshot))


def build(exchange: Exchange) -> Room:
    """Wire the room. Nothing connects until it runs."""
    settings = Settings()
    room = Room("policy", settings, exchange)
    bench = Bench()
    room.watches(CONFIG)(bench.hear_config)
    room.watches(CATALOGUE)(bench.hear_catalogue)
    marks = Marks()
    room.watches(LEDGER)(marks.hear)

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        epochs = BusEpochs(await room.bucket(LEDGER), room.facts)
        ledger = Ledger(settings.redis_url.get_secret_value(), epochs, settings.redis_timeout)
        marks.on_mark = ledger.marked
        rebuilder = Rebuilder(
            room, ledger, lambda: bench.snapshot, settings.ledger_quiet, settings.reap_grace
        )
        ledger.on_lost = rebuilder.lose
        _answer(room, Clerk(ledger, rebuilder, lambda: bench.snapshot, lambda: marks.scopes))
        gate = Gate(room, lambda: bench.judge, ledger, settings.reap_grace)

        @room.serves(CallRequested)
        async def judge(call: CallRequested, reply: Reply) -> None:
            await gate.pass_through(call, reply)

        settlement = Settlement(room, ledger, lambda: marks.scopes)
        room.hears(seconds=0.5, pause=0.1)(settlement.hear)
        work = (settlement.reap(), rebuilder.work(), _ping(room, ledger), _mark(ledger))
        try:
            async with _beside(*work):
                yield
        finally:
            await ledger.close()

    room.needs(opened)
    return room


def _answer(room: Room, clerk: Clerk) -> None:
    room.answers(LedgerAsked)(clerk.tell)
    room.answers(RebuildAsked)(clerk.rebuild)


@asynccontextmanager
async def _beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work that goes on until this is left."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _ping(room: Room, ledger: Ledger) -> None:
    """Keep the room's own word about Redis true."""
    while True:
        reason = (
            "" if await ledger.store.reachable() else "Redis cannot be reached: spending is refused"
        )
        room.why_not = lambda reason=reason: reason  # type: ignore[misc]
        await asyncio.sleep(PING_SECONDS)


async def _mark(ledger: Ledger) -> None:
    """Have the bus remember how far the counters have come."""
    while True:
        await asyncio.sleep(MARK_SECONDS)
        try:
            await ledger.mark()
        except Exception as error:  # noqa: BLE001 - whatever it was, the next mark says more
            log.warning("ledger.not_marked", extra={"reason": str(error)})
