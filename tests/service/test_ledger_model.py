"""A model of the ledger: no sequence of operations exceeds a budget or leaks a reservation."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from harness.services.ledger_state import MemoryGenerations, admitted, claim, counters
from toolbus_common.config import Budget, Level, Period
from toolbus_common.errors import BudgetExceededError
from toolbus_policy.ledger.ledger import EndKind, Ledger, ReservationEnd

LIMIT = 1000
CALLS = 12
MONEY, ROLLING, COUNTED = (
    "budget:key:bot:usd:month:UTC", "budget:team:ops:usd:month:rolling",
    "budget:team:ops:calls:month:UTC",
)  # fmt: skip
LEVELS = (
    ("key:bot", Level(budget=Budget(usd=LIMIT / 1e6, per=Period.MONTH))),
    (
        "team:ops",
        Level(
            budgets=(
                Budget(usd=LIMIT / 1e6, per=Period.MONTH, rolling=True),
                Budget(calls=CALLS, per=Period.MONTH),
            )
        ),
    ),
)


class Reservations(RuleBasedStateMachine):
    """The ledger beside a model of it: the reservation and the charge of each call."""

    url: str
    rids = Bundle("rids")

    def __init__(self) -> None:
        super().__init__()
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
        self.loop = asyncio.new_event_loop()
        self.ledger = Ledger(self.url, MemoryGenerations(), seconds=30.0)
        self.state: dict[str, str] = {}  # held, unknown, ended
        self.held: dict[str, int] = {}
        self.charged: dict[str, int] = {}
        self.number = 0

    def teardown(self) -> None:
        self.does(self.ledger.close())
        self.loop.close()

    def does(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @rule(target=rids, amount=st.integers(1, 400), expired=st.booleans())
    def reserve(self, amount: int, expired: bool) -> str:  # noqa: FBT001
        self.number += 1
        rid = f"r{self.number}"
        used = sum(self.held.values()) + sum(self.charged.values())
        calls = len(self.held) + len(self.charged)
        fits = used + amount <= LIMIT and calls + 1 <= CALLS
        try:
            due = 1.0 if expired else None
            self.does(self.ledger.reserve(claim(rid, admitted(amount, *LEVELS), due)))
        except BudgetExceededError:
            assert not fits
        else:
            assert fits
            self.state[rid], self.held[rid] = "held", amount
        return rid

    @rule(rid=rids)
    def reserve_again(self, rid: str) -> None:
        if self.state.get(rid) == "held":
            self.does(self.ledger.reserve(claim(rid, admitted(7, *LEVELS))))

    @rule(rid=rids, actual=st.integers(0, 500), times=st.integers(1, 2))
    def settle(self, rid: str, actual: int, times: int) -> None:
        self.does(self.ledger.settle([ReservationEnd(rid, "acme", "settle", actual)] * times))
        self._end(rid, lambda: actual)

    @rule(rid=rids)
    def refund(self, rid: str) -> None:
        self.does(self.ledger.settle([ReservationEnd(rid, "acme", "refund")]))
        self._end(rid, lambda: None)

    @rule(how=st.sampled_from(["unknown", "refund"]))
    def sweep(self, how: EndKind) -> None:
        for late in self.does(self.ledger.claim_expired("acme")):
            assert self.state[late.rid] == "held"
            self.does(self.ledger.settle([ReservationEnd(late.rid, "acme", how)]))
            amount = self.held[late.rid]
            self._end(late.rid, lambda amount=amount, how=how: amount if how == "unknown" else None)  # type: ignore[misc]
            if how == "unknown":
                self.state[late.rid] = "unknown"

    def _end(self, rid: str, charge: Callable[[], int | None]) -> None:
        if self.state.get(rid) not in ("held", "unknown"):
            return
        self.held.pop(rid, None)
        self.charged.pop(rid, None)
        self.state[rid] = "ended"
        amount = charge()
        if amount is not None:
            self.charged[rid] = amount

    @invariant()
    def counters_are_what_the_model_says(self) -> None:
        if not self.state:
            return
        money, rolling, counted = (
            self.does(counters(self.url, c)) for c in (MONEY, ROLLING, COUNTED)
        )
        spent = sum(amount for name, amount in rolling.items() if name[0] == "b")
        assert money["spent"] == spent == sum(self.charged.values())
        assert money["reserved"] == rolling["reserved"] == sum(self.held.values())
        assert (counted["spent"], counted["reserved"]) == (len(self.charged), len(self.held))


def test_no_sequence_exceeds_a_budget_or_leaks(valkey_url: str) -> None:
    Reservations.url = valkey_url
    run_state_machine_as_test(
        Reservations,
        settings=settings(
            max_examples=30, stateful_step_count=30, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("how", ["settle", "refund"])
async def test_a_drained_ledger_holds_nothing(valkey_url: str, how: Any) -> None:
    ledger = Ledger(valkey_url, MemoryGenerations(), seconds=30.0)
    await asyncio.gather(
        *(ledger.reserve(claim(f"r{n}", admitted(50, *LEVELS))) for n in range(10))
    )
    await ledger.settle([ReservationEnd(f"r{n}", "acme", how, 50) for n in range(10)])
    for counter in (MONEY, ROLLING, COUNTED):
        assert (await counters(valkey_url, counter))["reserved"] == 0
    await ledger.close()
