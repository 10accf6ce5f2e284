"""Policy's ledger on a real bus and Valkey, as admission and settlement use it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from time import time
from typing import Any

import redis.asyncio as redis

from harness.audit.events import allowed, completed
from harness.services.ledger_state import admitted, claim, counters
from harness.waits import until_async
from toolbus_audit.main import build as build_audit
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.config import Budget, Configuration, Customer, Key, Period, Team
from toolbus_common.contracts import CallFailed
from toolbus_common.nats.topology import LEDGER
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_policy.ledger.generations import BusGenerationStore
from toolbus_policy.ledger.ledger import Ledger, ReservationEnd
from toolbus_policy.ledger.recovery.rebuild import Rebuilder
from toolbus_policy.ledger.valkey_store import BOOK, customer_key

PRICE = 1000
DAILY = Budget(usd=0.01, per=Period.DAY)  # ten calls
CALLS = Budget(calls=50, per=Period.HOUR, rolling=True)
SERVER = {"key": "bot", "team": "ops", "server": "clock", "tool": "now", "charge": PRICE}
KEY, TEAM = "budget:key:bot:usd:day:UTC", "budget:team:ops:calls:hour:rolling"
DECLARED = Configuration(
    customers={"acme": Customer()},
    teams={"ops": Team(customer="acme", budget=CALLS)},
    keys={"bot": Key(team="ops", budget=DAILY)},
)
WANTED = admitted(PRICE, ("key:bot", DECLARED.keys["bot"]), ("team:ops", DECLARED.teams["ops"]))


@dataclass
class LedgerOperator:
    """Policy's ledger and rebuilder on a real bus, and the events policy publishes."""

    service: Service
    ledger: Ledger
    rebuilder: Rebuilder
    valkey_url: str
    number: int = field(default=0)
    name: str = field(default_factory=lambda: token_hex(4))

    async def call(self, *, ends: bool = True, deadline: float = 60.0) -> str:
        """Make a call as admission and settlement do; `deadline` is seconds from now."""
        self.number += 1
        rid = f"{self.name}.{self.number}"
        await self.ledger.reserve(claim(rid, WANTED, time() + deadline))
        await self.service.events.publish_durable(
            allowed(call_id=rid, **SERVER, reserved=True, deadline=time() + deadline)
        )
        if ends:
            await self.end(rid)
        return rid

    async def end(self, rid: str) -> None:
        """Publish the outcome of a call, and settle it."""
        event = CallFailed(
            **completed(call_id=rid, reserved=True, **outcome_fields()).model_dump(),
            code="upstream_dead", reason="Gone.", sent=True,
        )  # fmt: skip
        await self.service.events.publish_durable(event)
        await self.ledger.settle([ReservationEnd(rid, "acme", "settle", PRICE)])

    async def emptied(self) -> None:
        """Empty Redis, as after a crash without a disk."""
        await empty_valkey(self.valkey_url)

    async def older(self) -> None:
        """Convert the counters to the form of the version before: `book`, and `held`."""
        async with redis.Redis.from_url(self.valkey_url, decode_responses=True) as client:
            await client.rename(customer_key("acme", BOOK), customer_key("acme", "book"))
            for name in await client.keys("*:budget:*"):
                reserved = await client.hget(name, "reserved")
                await client.hset(name, "held", reserved)
                await client.hdel(name, "reserved")

    async def standing(self) -> tuple[int, int, int]:
        """Return the key's spent and reserved money, and the team's calls in all parts."""
        key = await counters(self.valkey_url, KEY)
        team = await counters(self.valkey_url, TEAM)
        calls = sum(count for name, count in team.items() if name[0] == "b")
        return key["spent"], key["reserved"], calls


def outcome_fields() -> dict[str, Any]:
    """Return the fields of a call's outcome."""
    return {"key": "bot", "server": "clock", "tool": "now", "charge": PRICE}


@asynccontextmanager
async def running_ledger(settings: Settings, valkey_url: str) -> AsyncIterator[LedgerOperator]:
    """Run the ledger of one policy replica."""
    service = Service("policy", settings)
    async with service.running():
        ledger = Ledger(
            valkey_url, BusGenerationStore(await service.bucket(LEDGER), service.events), 30.0
        )
        snapshot = ConfigSnapshot.of(DECLARED)
        rebuilder = Rebuilder(service, ledger, lambda: snapshot, quiet=0.1, grace=5.0)
        try:
            yield LedgerOperator(service, ledger, rebuilder, valkey_url)
        finally:
            await ledger.close()


@asynccontextmanager
async def serving_audit(settings: Settings, *, in_file: bool = False) -> AsyncIterator[Service]:
    """Run audit with a store of its own: ClickHouse, or a file as in the lite form."""
    audits = AuditSettings(
        state_dir=settings.state_dir,
        nats_url=settings.nats_url,
        drain_seconds=5.0,
        events_file=settings.state_dir / "events.db" if in_file else None,
    )

    async def ready() -> bool:
        return service.status().ready

    async with build_audit(ProcessContext(), audits).running() as service:
        await until_async(ready, "audit is ready")
        yield service


async def empty_valkey(url: str) -> None:
    """Empty Valkey, as after a crash without a disk."""
    async with redis.Redis.from_url(url) as client:
        await client.flushall()
