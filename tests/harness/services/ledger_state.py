"""Test data of the ledger: generations in memory, admissions, and stored counters."""

from time import time

import redis.asyncio as redis

from toolbus_common.access.pricing import Cost
from toolbus_common.access.principal import NEVER, EffectiveGrants, Principal
from toolbus_common.config import Budget, Key, Level, Loop, Period, Rate
from toolbus_policy.ledger.admitted_call import Admission, Payer
from toolbus_policy.ledger.generations import Generation, KnownGeneration
from toolbus_policy.ledger.limits import budgets_of, loops_of, rates_of
from toolbus_policy.ledger.reservation import CallContext
from toolbus_policy.ledger.reserve_args import ReservationRequest
from toolbus_policy.ledger.valkey_store import BOOK, customer_key

TOOL = "clock__now"
ABOUT = CallContext("clock", "now", "bot", "trace", "").encode()


class MemoryGenerations:
    """A store of generations in memory instead of on the bus."""

    def __init__(self) -> None:
        self.kept: dict[str, Generation] = {}
        self.marks: dict[str, tuple[str, int]] = {}

    async def known(self, customer: str) -> KnownGeneration | None:
        if customer not in self.kept:
            return None
        epoch = self.kept[customer]
        of, tick = self.marks.get(customer, ("", 0))
        return KnownGeneration(epoch, tick if of == epoch.id else 0)

    async def begin(self, customer: str, epoch: str) -> KnownGeneration:
        return KnownGeneration(self.kept.setdefault(customer, Generation(epoch, time())), 0)

    async def renew(
        self,
        customer: str,
        old: Generation,
        new: Generation,
        how: str,  # noqa: ARG002
        by: str,  # noqa: ARG002
    ) -> bool:
        if self.kept[customer] != old:
            return False
        self.kept[customer] = new
        return True

    async def mark(self, customer: str, epoch: str, tick: int) -> None:
        self.marks[customer] = (epoch, tick)


def admitted(charge: int, *levels: tuple[str, Level], customer: str = "acme") -> Admission:
    """Return the admission of a tool with a price, for a key with these levels."""
    principal = Principal("bot", Key(), levels, EffectiveGrants((("*",),)), customer, NEVER)
    payer = Payer(principal, "ops", "", budgets_of(levels), rates_of(levels), loops_of(levels))
    counting = tuple(each for each in payer.budgets if each.counts(TOOL, charge))
    return Admission(payer, Cost(charge), counting, payer.loops)


def admission(
    charge: int,
    *,
    usd: float = 0.01,
    team_usd: float | None = None,
    rate: Rate | None = None,
    loop: Loop | None = None,
) -> Admission:
    """Return an admission with a daily budget of the key and a monthly budget of its team."""
    levels: list[tuple[str, Level]] = [
        ("key:bot", Key(budget=Budget(usd=usd, per=Period.DAY), rate=rate, loop=loop))
    ]
    if team_usd is not None:
        levels.append(("team:ops", Level(budget=Budget(usd=team_usd, per=Period.MONTH))))
    return admitted(charge, *levels)


def claim(
    rid: str, wanted: Admission, due: float | None = None, repeated: str = ""
) -> ReservationRequest:
    """Return a reservation request."""
    return ReservationRequest(rid, wanted, ABOUT, due or time() + 60, repeated)


async def counters(
    url: str, counter: str = "budget:key:bot:usd:day:UTC", customer: str = "acme"
) -> dict[str, int]:
    """Return one counter of the current generation."""
    async with redis.Redis.from_url(url, decode_responses=True) as client:
        epoch = await client.hget(customer_key(customer, BOOK), "epoch")
        raw = await client.hgetall(f"{{{customer}}}:{epoch!s}:{counter}")
    return {str(name): int(value) for name, value in raw.items()}
