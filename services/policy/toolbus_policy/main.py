"""The policy room: may this key make this call, and who pays?

hears   CallRequested; the outcomes CallCompleted and CallFailed
says    CallAdmitted (to executor); the facts CallAllowed, CallDenied, CallFailed
owns    the ledger in Redis, its epochs in the bucket tb_ledger
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from toolbus_common.bus import Change
from toolbus_common.contracts import CallRequested, Listing
from toolbus_common.exchange import Exchange, Reply
from toolbus_common.lineage import DEFAULT_SCOPE
from toolbus_common.provision import CATALOGUE, CONFIG, LEDGER
from toolbus_common.room import Room
from toolbus_common.snapshot import Directory
from toolbus_policy.epochs import BusEpochs
from toolbus_policy.gate import Gate
from toolbus_policy.ledger import Ledger
from toolbus_policy.rules import Judge
from toolbus_policy.ruling import Rulings
from toolbus_policy.settings import Settings
from toolbus_policy.settlement import Settlement

PING_SECONDS = 2.0


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

    def scopes(self) -> list[str]:
        """Every paying customer."""
        return [DEFAULT_SCOPE, *self._directory.now.declaration.customers]

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

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        epochs = BusEpochs(await room.bucket(LEDGER))
        ledger = Ledger(settings.redis_url.get_secret_value(), epochs, settings.redis_timeout)
        gate = Gate(room, lambda: bench.judge, ledger, settings.reap_grace)
        settlement = Settlement(room, ledger, bench.scopes)

        @room.serves(CallRequested)
        async def judge(call: CallRequested, reply: Reply) -> None:
            await gate.pass_through(call, reply)

        room.hears(seconds=0.5, pause=0.1)(settlement.hear)
        tasks = [asyncio.create_task(settlement.reap()), asyncio.create_task(_ping(room, ledger))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await ledger.close()

    room.needs(opened)
    return room


async def _ping(room: Room, ledger: Ledger) -> None:
    """Keep the room's own word about Redis true."""
    while True:
        reason = "" if await ledger.reachable() else "Redis cannot be reached: spending is refused"
        room.why_not = lambda reason=reason: reason  # type: ignore[misc]
        await asyncio.sleep(PING_SECONDS)
