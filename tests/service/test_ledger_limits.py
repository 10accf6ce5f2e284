"""Budgets of every kind, rates, loops and the cluster's key rule, on a real Valkey."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from time import time
from typing import Any

import pytest
import redis.asyncio as redis

from harness.engines.engine import own_port
from harness.engines.valkey_server import ValkeyServer
from harness.services.ledger_state import MemoryGenerations, admission, admitted, claim, counters
from toolbus_common.config import Budget, Key, Level, Loop, Period, Rate
from toolbus_common.errors import BudgetExceededError, LoopDetectedError, RateExceededError
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.ledger.ledger import Ledger, ReservationEnd
from toolbus_policy.ledger.valkey_store import CounterContents, generation_key

ROLLING = Budget(usd=0.001, per=Period.HOUR, rolling=True)  # ten calls of 100
MINUTE = 60  # a part of a rolling hour


def with_budgets(charge: int, *budgets: Budget, level: str = "key:bot") -> Admission:
    return admitted(charge, (level, Level(budgets=budgets)))


async def passes(ledger: Ledger, wanted: Admission, maximum: int, prefix: str = "r") -> int:
    """Return how many of `maximum` reservations succeed."""
    count = 0
    for n in range(maximum):
        try:
            await ledger.reserve(claim(f"{prefix}{n}", wanted))
        except BudgetExceededError:
            continue
        count += 1
    return count


async def test_a_budget_of_calls_counts_free_calls_too(ledger: Ledger) -> None:
    wanted = with_budgets(0, Budget(calls=3, per=Period.DAY))
    assert await passes(ledger, wanted, 5) == 3
    with pytest.raises(BudgetExceededError, match="spent or reserved 3 of 3 calls per") as caught:
        await ledger.reserve(claim("more", wanted))
    assert caught.value.data["limit_calls"] == 3
    assert caught.value.data["reserved_calls"] == 3


async def test_a_refunded_call_is_not_counted(ledger: Ledger) -> None:
    wanted = with_budgets(0, Budget(calls=1, per=Period.DAY))
    await ledger.reserve(claim("r0", wanted))
    await ledger.settle([ReservationEnd("r0", "acme", "refund")])
    assert await passes(ledger, wanted, 3, "again") == 1


async def test_every_budget_of_a_level_holds_and_the_first_exceeded_is_named(
    ledger: Ledger,
) -> None:
    wanted = with_budgets(
        100, Budget(usd=1, per=Period.MONTH), Budget(usd=0.0003, per=Period.HOUR),
        Budget(calls=7, per=Period.DAY),
    )  # fmt: skip
    assert await passes(ledger, wanted, 5) == 3
    with pytest.raises(BudgetExceededError, match=r"of \$0.0003 per hour"):
        await ledger.reserve(claim("more", wanted))


async def test_a_changed_limit_retains_the_spending(ledger: Ledger) -> None:
    assert await passes(ledger, with_budgets(100, Budget(usd=0.0003, per=Period.DAY)), 5) == 3
    raised = with_budgets(100, Budget(usd=0.0005, per=Period.DAY))
    assert await passes(ledger, raised, 5, "raised") == 2


async def test_a_reset_is_reported_in_the_time_zone_of_the_budget(ledger: Ledger) -> None:
    budget = Budget(usd=0, per=Period.DAY, timezone="Asia/Kathmandu")
    with pytest.raises(BudgetExceededError, match=r"resets at \S+T00:00:00\+05:45"):
        await ledger.reserve(claim("r", with_budgets(100, budget)))


async def test_a_new_period_starts_with_nothing_spent_and_everything_reserved(
    ledger: Ledger, valkey_url: str
) -> None:
    wanted = with_budgets(100, Budget(usd=0.0003, per=Period.DAY))
    await ledger.reserve(claim("old", wanted))
    await ledger.reserve(claim("held", wanted))
    await ledger.settle([ReservationEnd("old", "acme", "settle", 100)])
    await _as_of_yesterday(valkey_url)
    assert await passes(ledger, wanted, 5) == 2, "reservations count in the new period too"
    await ledger.settle([ReservationEnd("held", "acme", "settle", 100)])
    assert (await counters(valkey_url))["spent"] == 0, "it was reserved in the old period"
    assert await passes(ledger, wanted, 5, "more") == 1


async def _as_of_yesterday(url: str) -> None:
    """Change the level and its records to those of the previous period."""
    async with redis.Redis.from_url(url, decode_responses=True) as client:
        (level,) = [key async for key in client.scan_iter("{acme}:*:budget:*")]
        await client.hincrby(level, "window", -86_400)
        (calls,) = [key async for key in client.scan_iter("{acme}:*:calls")]
        for rid, record in (await client.hgetall(calls)).items():
            state, at, *rest = str(record).split("|")
            await client.hset(calls, rid, "|".join([state, str(int(at) - 86_400), *rest]))


async def test_a_rolling_budget_counts_its_whole_period_and_nothing_before(
    ledger: Ledger, valkey_url: str
) -> None:
    wanted = with_budgets(100, ROLLING)
    await ledger.reserve(claim("first", wanted))
    await ledger.settle([ReservationEnd("first", "acme", "settle", 100)])
    counter = "budget:key:bot:usd:hour:rolling"
    present = int(time()) // MINUTE
    async with redis.Redis.from_url(valkey_url, decode_responses=True) as client:
        (level,) = [key async for key in client.scan_iter(f"{{acme}}:*:{counter}")]
        await client.hset(level, f"b{present - 59}", "500")
        await client.hset(level, f"b{present - 70}", "1000000")
    with pytest.raises(BudgetExceededError, match="per rolling hour"):
        await ledger.reserve(claim("large", with_budgets(500, ROLLING)))
    assert await passes(ledger, wanted, 9) == 4
    assert f"b{present - 70}" not in await counters(valkey_url, counter), "the old part is removed"


async def test_a_rolling_budget_reports_when_its_oldest_spending_expires(
    ledger: Ledger, valkey_url: str
) -> None:
    assert await passes(ledger, with_budgets(100, ROLLING), 10) == 10
    ends = [ReservationEnd(f"r{n}", "acme", "settle", 100) for n in range(10)]
    await ledger.settle(ends)
    found = await counters(valkey_url, "budget:key:bot:usd:hour:rolling")
    oldest = min(int(name[1:]) for name in found if name[0] == "b")
    with pytest.raises(BudgetExceededError) as caught:
        await ledger.reserve(claim("more", with_budgets(100, ROLLING)))
    resets = caught.value.data["resets_at"]
    async with redis.Redis.from_url(valkey_url) as client:
        await client.ping()
    assert resets == _iso((oldest + 61) * MINUTE)


def _iso(second: int) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415

    return datetime.fromtimestamp(second, UTC).isoformat()


async def test_a_race_over_four_levels_stops_at_the_tightest(
    ledger: Ledger, valkey_url: str
) -> None:
    levels = [
        (each, Level(budget=Budget(usd=usd, per=Period.DAY)))
        for each, usd in (
            ("key:bot", 0.02), ("user:ann", 0.0042), ("team:ops", 0.03), ("customer:acme", 1),
        )
    ]  # fmt: skip
    wanted, named = admitted(100, *levels), set[str]()

    async def attempt(n: int) -> bool:
        try:
            await ledger.reserve(claim(f"r{n}", wanted))
        except BudgetExceededError as error:
            named.add(error.data["level"])
            return False
        return True

    assert sum(await asyncio.gather(*(attempt(n) for n in range(300)))) == 42
    assert named == {"user:ann"}
    for each, _ in levels:
        assert (await counters(valkey_url, f"budget:{each}:usd:day:UTC"))["reserved"] == 4200


async def test_every_rate_of_a_level_holds(ledger: Ledger) -> None:
    level = Level(rates=(Rate(calls=100, per=Period.SECOND), Rate(calls=2, per=Period.HOUR)))
    wanted = admitted(0, ("key:bot", level))
    for n in range(2):
        await ledger.reserve(claim(f"r{n}", wanted))
    with pytest.raises(RateExceededError, match="2 calls per hour"):
        await ledger.reserve(claim("more", wanted))


async def test_the_same_call_too_often_in_one_run_is_a_loop(ledger: Ledger) -> None:
    wanted = admission(100, loop=Loop(calls=3, seconds=600))
    for n in range(3):
        await ledger.reserve(claim(f"r{n}", wanted, repeated="same"))
    with pytest.raises(LoopDetectedError, match=r"change the arguments, .* or stop") as caught:
        await ledger.reserve(claim("more", wanted, repeated="same"))
    assert caught.value.data["limit_calls"] == 3
    await ledger.reserve(claim("other", wanted, repeated="different"))


async def test_a_rejected_loop_holds_no_money(ledger: Ledger, valkey_url: str) -> None:
    wanted = admission(100, loop=Loop(calls=1, seconds=600))
    await ledger.reserve(claim("r1", wanted, repeated="same"))
    with pytest.raises(LoopDetectedError):
        await ledger.reserve(claim("r2", wanted, repeated="same"))
    assert (await counters(valkey_url))["reserved"] == 100


async def test_a_call_may_be_repeated_once_its_window_has_passed(ledger: Ledger) -> None:
    wanted = admission(100, loop=Loop(calls=1, seconds=1))
    await ledger.reserve(claim("r1", wanted, repeated="same"))
    await asyncio.sleep(1.1)
    await ledger.reserve(claim("r2", wanted, repeated="same"))


async def test_clocks_too_far_apart_prevent_spending(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    hourly = with_budgets(100, Budget(usd=1, per=Period.HOUR))
    monkeypatch.setattr("toolbus_policy.ledger.ledger.time", lambda: time() - 3 * 3600)
    with pytest.raises(Exception, match="clocks of policy and Redis differ"):
        await ledger.reserve(claim("r", hourly))


async def test_a_clock_slightly_ahead_does_not_start_the_next_period(
    ledger: Ledger, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = with_budgets(100, Budget(usd=0.0001, per=Period.HOUR))
    await ledger.reserve(claim("r", wanted))
    monkeypatch.setattr("toolbus_policy.ledger.ledger.time", lambda: time() + 3600)
    assert await passes(ledger, wanted, 3, "early") == 0
    assert (await counters(valkey_url, "budget:key:bot:usd:hour:UTC"))["reserved"] == 100


LEVELS: Any = [
    ("key:bot", Key(
        budgets=(Budget(usd=1, per=Period.DAY), ROLLING, Budget(calls=9, per=Period.MONTH)),
        rate=Rate(calls=99, per=Period.MINUTE), loop=Loop(calls=9),
    )),
    ("customer:acme", Level(budget=Budget(usd=1, per=Period.WEEK, timezone="Europe/Oslo"))),
]  # fmt: skip


async def every_script(ledger: Ledger, generations: MemoryGenerations) -> None:
    """Run every path of every script, and the commands beside them."""
    wanted, store = admitted(100, *LEVELS), ledger.store
    for n in range(4):
        await ledger.reserve(claim(f"r{n}", wanted, due=time() - 1, repeated="x"))
    assert len(await ledger.claim_expired("acme")) == 4
    await ledger.settle(
        [ReservationEnd("r0", "acme", "settle", 90), ReservationEnd("r1", "acme", "unknown")]
    )
    await ledger.settle(
        [ReservationEnd("r2", "acme", "refund"), ReservationEnd("r1", "acme", "refund")]
    )
    assert await store.lock("acme", "token", 60)
    await store.close_counters("acme")
    assert await store.extend_lock("acme", "token", 60)
    await store.write_contents(
        "acme", "new", CounterContents({"budget:x": {"reserved": 1}}, {"r": "d|1|1||[]"}, {"r": 1})
    )
    assert await store.open_generation("acme", "token", "new")
    assert await store.read_state("acme") == ("new", 0)
    await store.read_levels("acme", "new", ["budget:x"])
    await store.delete_other_generations("acme", "new")
    assert generations.kept["acme"].id != "new"


def keys_of(words: list[str]) -> set[str]:
    """Return the keys of a command the server received; commands of scripts are included."""
    if words[0] in ("EVALSHA", "EVAL"):
        return set(words[3 : 3 + int(words[2])])
    if words[0] in ("DEL", "UNLINK", "EXISTS"):
        return set(words[1:])
    return set() if words[0] in ("SCRIPT", "SCAN", "CLIENT", "HELLO", "TIME") else {words[1]}


async def test_every_key_of_every_script_has_the_customers_tag(valkey_url: str) -> None:
    generations = MemoryGenerations()
    ledger, seen = Ledger(valkey_url, generations, seconds=30.0), set[str]()
    async with redis.Redis.from_url(valkey_url) as client, client.monitor() as monitor:
        await every_script(ledger, generations)
        await client.ping()
        async with aclosing(monitor.listen()) as commands:
            async for command in commands:
                words = command["command"].split(" ")
                if words[0] == "PING":
                    break
                seen |= keys_of(words)
    await ledger.close()
    assert len(seen) > 10
    assert [key for key in seen if not key.startswith("{acme}:")] == []


async def test_every_script_runs_on_a_cluster(own_cluster: ValkeyServer) -> None:
    generations = MemoryGenerations()
    ledger = Ledger(own_cluster.url, generations, seconds=30.0)
    await every_script(ledger, generations)
    await ledger.close()
    assert generation_key("acme", "e", "calls").startswith("{acme}:")


class ValkeyCluster(ValkeyServer):
    """A cluster of one node: it rejects scripts that use keys of another slot."""

    def command(self) -> list[str]:
        bus = str(own_port())  # the default, the port plus 10,000, may be invalid
        return [*super().command(), "--cluster-enabled", "yes", "--cluster-port", bus]


@pytest.fixture
async def own_cluster(tmp_path: Any) -> AsyncIterator[ValkeyServer]:
    server = ValkeyCluster(tmp_path / "cluster")
    server.start()
    async with redis.Redis.from_url(server.url) as client:
        await client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)  # type: ignore[no-untyped-call]
        async with asyncio.timeout(30):
            text = b""
            while b"cluster_state:ok" not in text:
                await asyncio.sleep(0.05)
                text = await client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
    yield server
    server.kill()
