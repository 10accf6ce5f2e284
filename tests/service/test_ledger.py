"""The ledger on a real Valkey: exact under races, each reservation ended once, never reset."""

import asyncio
from time import time

import pytest
import redis.asyncio as redis

from harness.engines.valkey_server import ValkeyServer
from harness.services.ledger_state import MemoryGenerations, admission, claim, counters
from toolbus_common.config import Period, Rate
from toolbus_common.errors import (
    BudgetExceededError,
    LedgerDownError,
    LedgerRebuildingError,
    RateExceededError,
)
from toolbus_policy.ledger.ledger import Ledger, ReservationEnd


async def test_a_race_for_the_last_dollar_never_exceeds_the_budget(
    ledger: Ledger, valkey_url: str
) -> None:
    wanted_admission = admission(100, usd=0.0042)  # 42 calls of 100 micro-dollars

    async def attempt(n: int) -> bool:
        try:
            await ledger.reserve(claim(f"r{n}", wanted_admission))
        except BudgetExceededError:
            return False
        return True

    won = await asyncio.gather(*(attempt(n) for n in range(500)))
    assert sum(won) == 42
    assert (await counters(valkey_url))["reserved"] == 4200


async def test_a_denial_names_the_level_the_limit_and_the_reset(ledger: Ledger) -> None:
    with pytest.raises(BudgetExceededError, match=r"key:bot' .* of \$0.01 per day; it resets at"):
        await ledger.reserve(claim("r", admission(10_001)))


async def test_a_denied_level_leaves_every_other_level_unchanged(
    ledger: Ledger, valkey_url: str
) -> None:
    with pytest.raises(BudgetExceededError, match="team:ops"):
        await ledger.reserve(claim("r", admission(100, team_usd=0.00001)))
    assert (await counters(valkey_url)).get("reserved", 0) == 0


async def test_a_repeated_reservation_is_held_once(ledger: Ledger, valkey_url: str) -> None:
    for _ in range(3):
        await ledger.reserve(claim("same", admission(100)))
    assert (await counters(valkey_url))["reserved"] == 100


async def test_a_repeated_settlement_charges_once(ledger: Ledger, valkey_url: str) -> None:
    await ledger.reserve(claim("r", admission(100)))
    final = ReservationEnd("r", "acme", "settle", 100)
    await ledger.settle([final, final])
    await ledger.settle([final])
    found = await counters(valkey_url)
    assert (found["spent"], found["reserved"]) == (100, 0)


async def test_a_refund_releases_everything(ledger: Ledger, valkey_url: str) -> None:
    await ledger.reserve(claim("r", admission(100, team_usd=1)))
    await ledger.settle([ReservationEnd("r", "acme", "refund")])
    for level in ("budget:key:bot:usd:day:UTC", "budget:team:ops:usd:month:UTC"):
        found = await counters(valkey_url, level)
        assert (found["spent"], found["reserved"]) == (0, 0)


async def test_an_amount_above_the_reservation_is_charged_and_recorded_as_debt(
    ledger: Ledger, valkey_url: str
) -> None:
    await ledger.reserve(claim("r", admission(100)))
    await ledger.settle([ReservationEnd("r", "acme", "settle", 150)])
    found = await counters(valkey_url)
    assert (found["spent"], found["debt"]) == (150, 50)


async def test_an_expired_call_is_charged_once_as_unknown_and_correctable(
    ledger: Ledger, valkey_url: str
) -> None:
    await ledger.reserve(claim("r", admission(100), due=time() - 1))
    expired = await ledger.claim_expired("acme")
    assert [(late.rid, late.amount) for late in expired] == [("r", 100)]
    for _ in range(2):
        await ledger.settle([ReservationEnd("r", "acme", "unknown")])
    assert (await counters(valkey_url))["spent"] == 100
    await ledger.settle([ReservationEnd("r", "acme", "refund")])  # the late outcome: not dispatched
    found = await counters(valkey_url)
    assert (found["spent"], found["reserved"]) == (0, 0)


async def test_an_expired_call_is_claimed_by_one_sweeper(ledger: Ledger) -> None:
    await ledger.reserve(claim("r", admission(100), due=time() - 1))
    assert [late.rid for late in await ledger.claim_expired("acme")] == ["r"]
    assert await ledger.claim_expired("acme") == []  # claimed: another replica ignores it


async def test_a_reservation_in_the_format_until_0_1_is_read(
    ledger: Ledger, valkey_url: str
) -> None:
    await ledger.reserve(claim("r", admission(100), due=time() - 1))
    async with redis.Redis.from_url(valkey_url, decode_responses=True) as client:
        (name,) = [key async for key in client.scan_iter("{acme}:*:calls")]
        record = str(await client.hget(name, "r"))
        await client.hset(name, "r", f"h{record[1:]}")
    (late,) = await ledger.claim_expired("acme")
    assert (late.rid, late.about.after) == ("r", 0)
    await ledger.settle([ReservationEnd("r", "acme", "unknown")])
    assert (await counters(valkey_url))["spent"] == 100


async def test_a_rate_allows_its_burst_and_then_names_the_retry_time(ledger: Ledger) -> None:
    wanted_admission = admission(0, rate=Rate(calls=3, per=Period.MINUTE))
    for n in range(3):
        await ledger.reserve(claim(f"r{n}", wanted_admission))
    with pytest.raises(RateExceededError, match=r"3 calls per minute; retry in (1\d|20)") as caught:
        await ledger.reserve(claim("r3", wanted_admission))
    assert 0 < caught.value.data["retry_after"] <= 20


async def test_a_rate_denial_holds_no_money(ledger: Ledger, valkey_url: str) -> None:
    wanted_admission = admission(100, rate=Rate(calls=1, per=Period.HOUR))
    await ledger.reserve(claim("r1", wanted_admission))
    with pytest.raises(RateExceededError):
        await ledger.reserve(claim("r2", wanted_admission))
    assert (await counters(valkey_url))["reserved"] == 100


async def test_an_emptied_redis_is_never_a_fresh_budget(ledger: Ledger, valkey_url: str) -> None:
    await ledger.reserve(claim("r1", admission(100)))
    async with redis.Redis.from_url(valkey_url) as client:
        await client.flushall()
    for rid in ("r2", "r3"):
        with pytest.raises(LedgerRebuildingError, match="lost its counters"):
            await ledger.reserve(claim(rid, admission(100)))


async def test_a_killed_redis_rejects_and_a_restarted_one_retains_its_counters(
    own_valkey: ValkeyServer,
) -> None:
    ledger = Ledger(own_valkey.url, MemoryGenerations(), seconds=30.0)
    await ledger.reserve(claim("r1", admission(100)))
    own_valkey.kill()
    with pytest.raises(LedgerDownError, match="is unreachable"):
        await ledger.reserve(claim("r2", admission(100)))
    own_valkey.start()
    await ledger.reserve(claim("r3", admission(100)))
    assert (await counters(own_valkey.url))["reserved"] == 200
    await ledger.close()


async def test_a_late_answer_is_not_the_answer_to_the_next_command(
    own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(own_valkey.url, MemoryGenerations(), seconds=30.0)
    try:
        await ledger.reserve(claim("r1", admission(100)))
        async with redis.Redis.from_url(own_valkey.url) as client:
            await client.client_pause(600_000, all=False)  # else it would pause its own unpausing
            with monkeypatch.context() as hasty:  # only for the command whose answer is late
                hasty.setattr(ledger.store._scripts, "_seconds", 0.3)
                with pytest.raises(LedgerDownError, match="is unreachable"):
                    await ledger.reserve(claim("r2", admission(10**9, usd=0.001)))
            await client.client_unpause()
        await ledger.reserve(claim("r3", admission(100)))
    finally:
        await ledger.close()
