"""Lost counters: spending stays rejected until they are rebuilt or accepted by an operator."""

import asyncio
from collections.abc import AsyncIterator
from math import inf
from pathlib import Path
from time import time
from urllib.parse import urlencode

import pytest
import redis.asyncio as redis

from harness.audit.events import bus_of, completed, events_of
from harness.services.ledger_operator import (
    PRICE,
    WANTED,
    LedgerOperator,
    outcome_fields,
    running_ledger,
    serving_audit,
)
from harness.services.ledger_state import claim
from harness.waits import until_async
from toolbus_audit.clickhouse import embedded_engine
from toolbus_audit.clickhouse.embedded_memory import EMBEDDED_SETTINGS
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_common.contracts import CallFailed
from toolbus_common.errors import BudgetExceededError, LedgerRebuildingError
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.nats.stream_reader import read_from
from toolbus_common.nats.topology import EVENTS, LEDGER
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_policy.ledger.ledger import ReservationEnd
from toolbus_policy.ledger.recovery.rebuild import Rebuilder
from toolbus_policy.ledger.settlement import SettlementConsumer
from toolbus_policy.ledger.valkey_store import BOOK


async def copied(client: "redis.Redis") -> dict[bytes, bytes]:
    """Return everything Redis contains, to be restored."""
    names = [bytes(name) for name in await client.keys("*")]  # type: ignore[arg-type]
    return {name: bytes(await client.dump(name) or b"") for name in names}


@pytest.fixture
async def ledger_operator(settings: Settings, valkey_url: str) -> AsyncIterator[LedgerOperator]:
    async with running_ledger(settings, valkey_url) as operator_:
        yield operator_


IN_A_FILE = "a file"
BOTH_STORES = pytest.mark.parametrize("audit", ["ClickHouse", IN_A_FILE], indirect=True)


@pytest.fixture
async def audit(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Service]:
    in_file = getattr(request, "param", "") == IN_A_FILE
    async with serving_audit(settings, in_file=in_file) as service:
        yield service


@BOTH_STORES
@pytest.mark.usefixtures("audit")
async def test_an_emptied_redis_is_rebuilt_from_the_events_with_open_calls(
    ledger_operator: LedgerOperator,
) -> None:
    for _ in range(3):
        await ledger_operator.call()
    rid = await ledger_operator.call(ends=False)
    before = await ledger_operator.standing()
    await ledger_operator.emptied()
    with pytest.raises(LedgerRebuildingError, match="lost its counters"):
        await ledger_operator.ledger.reserve(claim("early", WANTED))
    result = await ledger_operator.rebuilder.rebuild("acme")
    assert result is not None
    # A thousand micro-dollars, and one call.
    assert (result.calls, result.reserved) == (1, PRICE + 1)
    assert await ledger_operator.standing() == before == (3 * PRICE, PRICE, 3)
    await ledger_operator.end(rid)
    assert await ledger_operator.standing() == (4 * PRICE, 0, 4)


@pytest.mark.usefixtures("audit")
async def test_counters_of_an_older_form_are_rebuilt_and_never_settled(
    ledger_operator: LedgerOperator,
) -> None:
    rid = await ledger_operator.call(ends=False)
    before = await ledger_operator.standing()
    await ledger_operator.older()
    with pytest.raises(LedgerRebuildingError, match="lost its counters"):
        await ledger_operator.ledger.reserve(claim("early", WANTED))
    await ledger_operator.rebuilder.rebuild("acme")
    assert await ledger_operator.standing() == before == (0, PRICE, 0)
    await ledger_operator.end(rid)
    assert await ledger_operator.standing() == (PRICE, 0, 1)


@BOTH_STORES
@pytest.mark.usefixtures("audit")
@pytest.mark.parametrize("lost", [False, True])
async def test_expired_reservations_end_alike_after_a_loss_of_counters(
    ledger_operator: LedgerOperator, *, lost: bool
) -> None:
    settlement = SettlementConsumer(
        ledger_operator.service, ledger_operator.ledger, lambda: ["acme"], 1.0
    )
    await ledger_operator.call(ends=False, deadline=-6.0)
    await ledger_operator.ledger.reserve(claim("never", WANTED, time() - 6))
    if lost:
        await ledger_operator.emptied()
        assert await ledger_operator.rebuilder.rebuild("acme") is not None

    async def ended() -> bool:
        await settlement.sweep_once()
        return (await ledger_operator.standing())[1] == 0

    await until_async(ended, "nothing is held")
    assert await ledger_operator.standing() == (PRICE, 0, 1)


@BOTH_STORES
@pytest.mark.usefixtures("audit")
async def test_spending_before_the_loss_counts_after_it(ledger_operator: LedgerOperator) -> None:
    for _ in range(8):
        await ledger_operator.call()
    await ledger_operator.emptied()
    await ledger_operator.rebuilder.rebuild("acme")
    for _ in range(2):
        await ledger_operator.call()
    with pytest.raises(BudgetExceededError, match="key:bot"):
        await ledger_operator.call()


@pytest.mark.usefixtures("audit")
async def test_a_redis_restored_from_an_older_copy_is_rebuilt(
    ledger_operator: LedgerOperator,
) -> None:
    await ledger_operator.call()
    async with redis.Redis.from_url(ledger_operator.valkey_url) as client:
        copy = await copied(client)
        await ledger_operator.call()
        await client.flushall()
        for key, value in copy.items():
            await client.restore(key, 0, value)
    assert (await ledger_operator.standing())[0] == PRICE
    with pytest.raises(LedgerRebuildingError):
        await ledger_operator.ledger.reserve(claim("early", WANTED))
    await ledger_operator.rebuilder.rebuild("acme")
    assert (await ledger_operator.standing())[0] == 2 * PRICE


@pytest.mark.usefixtures("audit")
async def test_an_older_copy_is_rebuilt_by_a_policy_that_just_started(
    ledger_operator: LedgerOperator, settings: Settings
) -> None:
    await ledger_operator.call()
    async with redis.Redis.from_url(ledger_operator.valkey_url) as client:
        copy = await copied(client)
        await ledger_operator.call()
        await ledger_operator.ledger.mark()
        await client.flushall()
        for key, value in copy.items():
            await client.restore(key, 0, value)
    async with running_ledger(settings, ledger_operator.valkey_url) as other:
        with pytest.raises(LedgerRebuildingError):
            await other.ledger.reserve(claim("early", WANTED))


@pytest.mark.usefixtures("audit")
async def test_missing_events_keep_spending_rejected_until_accepted(
    ledger_operator: LedgerOperator,
) -> None:
    await ledger_operator.call()
    bucket = await ledger_operator.service.bucket(LEDGER)
    entry = await bucket.get("epoch.acme")
    assert entry is not None
    assert entry.value is not None
    epoch = (await ledger_operator.ledger.generations.known("acme")).generation.id  # type: ignore[union-attr]
    await bucket.put("epoch.acme", b'{"id":"%s","since":0}' % epoch.encode())
    await ledger_operator.emptied()
    with pytest.raises(LedgerRebuildingError, match="toolbus ledger accept acme"):
        await ledger_operator.rebuilder.rebuild("acme")
    with pytest.raises(LedgerRebuildingError):
        await ledger_operator.ledger.reserve(claim("early", WANTED))
    result = await ledger_operator.rebuilder.rebuild("acme", force=True, accept=True, by="op")
    assert result is not None
    assert (await ledger_operator.standing())[0] == PRICE, "what the events hold is counted"
    await ledger_operator.call()


async def test_without_audit_spending_stays_rejected_with_a_fix(
    ledger_operator: LedgerOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolbus_policy.ledger.recovery.rebuild.CATCH_UP_SECONDS", 0.5)
    await ledger_operator.call()
    await ledger_operator.emptied()
    with pytest.raises(LedgerRebuildingError, match=r"Audit has not .* ledger accept acme"):
        await ledger_operator.rebuilder.rebuild("acme")
    with pytest.raises(LedgerRebuildingError):
        await ledger_operator.ledger.reserve(claim("early", WANTED))


@pytest.mark.usefixtures("audit")
@pytest.mark.parametrize("after", [0, 5])
async def test_a_message_that_the_stream_has_twice_is_counted_once(
    ledger_operator: LedgerOperator, settings: Settings, operator: Bus, after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("toolbus_policy.ledger.recovery.repeated_messages.PAGE", 3)
    for _ in range(3):
        await ledger_operator.call()
    await _repeat_messages(settings, operator, 2)
    for _ in range(after):
        await ledger_operator.call()

    async def stored() -> bool:
        return await operator.finished(EVENTS, "audit") == inf

    await until_async(stored, "the events are stored")
    _merge_rows(settings.state_dir)
    await ledger_operator.emptied()
    assert await ledger_operator.rebuilder.rebuild("acme") is not None
    count = 3 + after
    assert await ledger_operator.standing() == (count * PRICE, 0, count)


async def _repeat_messages(settings: Settings, operator: Bus, number: int) -> None:
    """Store the last messages again, as a publisher does after more than the server's window."""
    messages = await read_from(operator.client, EVENTS, 1, "tb.event.call.*.acme")
    async with bus_of("policy", settings) as bus:
        for message in messages[-number:]:
            again = Envelope(message.subject, f"again.{message.sequence}", message.data)
            await bus.store(again)


def _merge_rows(state_dir: Path) -> None:
    """Let the embedded engine remove repeated events, as it does by itself some time later."""
    store = AuditSettings(state_dir=state_dir)
    configuration = store.clickhouse_directory.with_name(
        f"{store.clickhouse_directory.name}.policies"
    )
    options = EMBEDDED_SETTINGS | {"config-file": str((configuration / "config.xml").resolve())}
    engine = embedded_engine.connect(f"{store.clickhouse_directory.resolve()}?{urlencode(options)}")
    engine.query(f"OPTIMIZE TABLE {store.clickhouse_database}.events FINAL")
    engine.close()


@pytest.mark.usefixtures("audit")
async def test_an_outcome_during_a_rebuild_waits_for_it(
    ledger_operator: LedgerOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, may_go_on = asyncio.Event(), asyncio.Event()
    audit_has_all = Rebuilder._audit_has_all

    async def held(rebuilder: Rebuilder, customer: str, token: str) -> None:
        under_way.set()
        await may_go_on.wait()
        await audit_has_all(rebuilder, customer, token)

    monkeypatch.setattr(Rebuilder, "_audit_has_all", held)
    rid = await ledger_operator.call(ends=False)
    await ledger_operator.emptied()
    rebuilding = asyncio.create_task(ledger_operator.rebuilder.rebuild("acme"))
    await under_way.wait()
    with pytest.raises(Exception, match="being rebuilt"):
        await ledger_operator.end(rid)
    may_go_on.set()
    await rebuilding
    await ledger_operator.ledger.settle([ReservationEnd(rid, "acme", "settle", PRICE)])
    assert await ledger_operator.standing() == (PRICE, 0, 1)


@pytest.mark.usefixtures("audit")
async def test_two_replicas_rebuild_once(
    ledger_operator: LedgerOperator, settings: Settings
) -> None:
    await ledger_operator.call()
    await ledger_operator.emptied()
    async with running_ledger(settings, ledger_operator.valkey_url) as other:
        result = await asyncio.gather(
            ledger_operator.rebuilder.rebuild("acme"), other.rebuilder.rebuild("acme"),
            return_exceptions=True,
        )  # fmt: skip
        assert sum(isinstance(each, LedgerRebuildingError) for each in result) == 1
        await other.ledger.reserve(claim("later", WANTED))
    assert (await ledger_operator.standing())[:2] == (PRICE, PRICE)


@BOTH_STORES
@pytest.mark.usefixtures("audit")
async def test_a_call_charged_as_unknown_counts_and_can_still_be_corrected(
    ledger_operator: LedgerOperator, settings: Settings, tmp_path: Path
) -> None:
    rid = await ledger_operator.call(ends=False)
    unknown = completed(call_id=rid, id=f"{rid}.unknown", **outcome_fields()).model_dump()
    async with events_of("policy", settings, tmp_path) as policy:
        await _record(policy, CallFailed(**unknown, code="outcome_unknown", reason="?", sent=True))
    await ledger_operator.emptied()
    await ledger_operator.rebuilder.rebuild("acme")
    assert await ledger_operator.standing() == (PRICE, 0, 1)
    await ledger_operator.ledger.settle([ReservationEnd(rid, "acme", "refund")])
    assert await ledger_operator.standing() == (0, 0, 0)


async def _record(writer: EventPublisher, event: CallFailed) -> None:
    await writer.publish_durable(event)


@pytest.mark.usefixtures("audit")
async def test_a_healthy_ledger_is_unchanged_by_a_rebuild(ledger_operator: LedgerOperator) -> None:
    for _ in range(4):
        await ledger_operator.call()
    before = await ledger_operator.standing()
    assert await ledger_operator.rebuilder.rebuild("acme") is None, "nothing is lost"
    assert await ledger_operator.rebuilder.rebuild("acme", force=True) is not None
    assert await ledger_operator.standing() == before
    async with redis.Redis.from_url(ledger_operator.valkey_url, decode_responses=True) as client:

        async def tidy() -> bool:
            generations = {str(key).split(":")[1] for key in await client.keys("{acme}:*")}
            return len(generations - {BOOK, "lock"}) == 1

        await until_async(tidy, "the counters of the old epoch are gone")
