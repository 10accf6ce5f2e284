"""Calls without a reservation and without an outcome: recorded once as unknown."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import time
from typing import Any

import pytest

from harness.audit.events import allowed, completed, consumed, events_of
from harness.services.ledger_state import MemoryGenerations, admission, claim
from harness.waits import until_async
from toolbus_audit.main import build
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_policy.ledger.ledger import Ledger, ReservationEnd
from toolbus_policy.ledger.recovery.unresolved_calls import (
    ALL_CUSTOMERS,
    MARK,
    UnresolvedCallSweeper,
)


@pytest.fixture(params=["ClickHouse", "a file"])
async def sweepers(
    request: pytest.FixtureRequest, settings: Settings, operator: Bus, valkey_url: str
) -> AsyncIterator[list[UnresolvedCallSweeper]]:
    """Run two replicas of policy that sweep, and the audit they query."""
    own = AuditSettings(
        state_dir=settings.state_dir,
        nats_url=settings.nats_url,
        drain_seconds=5.0,
        events_file=settings.state_dir / "events.db" if request.param == "a file" else None,
    )
    ledger = Ledger(valkey_url, MemoryGenerations(), 5.0)
    services = [Service("policy", settings) for _ in range(2)]
    async with (
        build(ProcessContext(), own).running() as audit,
        services[0].running(),
        services[1].running(),
    ):

        async def ready() -> bool:
            return audit.status().ready

        await until_async(ready, "audit is ready")
        assert operator.connected
        try:
            yield [UnresolvedCallSweeper(service, ledger, 1.0) for service in services]
        finally:
            await ledger.close()


@pytest.fixture
async def policy(settings: Settings, tmp_path: Path) -> AsyncIterator[EventPublisher]:
    async with events_of("policy", settings, tmp_path) as writer:
        yield writer


async def named(operator: Bus) -> list[tuple[Any, ...]]:
    """Return the calls with an unknown outcome, once audit has every event."""
    await until_async(lambda: consumed(operator), "everything is acknowledged")
    sql = "SELECT call_id, code, sent, charge FROM events WHERE endsWith(id, '.unknown')"
    requests = RequestReply("operator", operator)
    found = await requests.request(AuditQuery(sql=f"{sql} ORDER BY call_id"), RowsReply, 20.0)
    return list(found.rows)


async def test_a_call_without_an_outcome_gets_one_unknown_outcome(
    sweepers: list[UnresolvedCallSweeper], operator: Bus, policy: EventPublisher
) -> None:
    past = time() - 10
    for call in ("a", "b"):
        await policy.publish_durable(allowed(call_id=call, charge=7, at=past, deadline=past + 5))
    assert sum(await asyncio.gather(*(each.sweep_once() for each in sweepers))) == 2
    for each in sweepers:
        assert await each.sweep_once() == 0
    unknown = ("outcome_unknown", True, 7)
    assert await named(operator) == [("a", *unknown), ("b", *unknown)]


async def test_a_refunded_call_gets_an_unknown_outcome_and_costs_nothing(
    sweepers: list[UnresolvedCallSweeper], operator: Bus, policy: EventPublisher
) -> None:
    past = time() - 10
    ledger = sweepers[0].ledger
    await ledger.reserve(claim("held", admission(100), due=time() + 60))
    for call in ("held", "given-back"):
        await policy.publish_durable(
            allowed(call_id=call, charge=7, at=past, deadline=past + 5, reserved=True)
        )
    assert await sweepers[0].sweep_once() == 1
    assert await named(operator) == [("given-back", "outcome_unknown", True, 0)]
    await ledger.settle([ReservationEnd("held", "acme", "refund")])
    assert await sweepers[0].sweep_once() == 1
    assert [row[0] for row in await named(operator)] == ["given-back", "held"]


async def test_a_call_that_ended_or_still_may_gets_no_unknown_outcome(
    sweepers: list[UnresolvedCallSweeper],
    operator: Bus,
    policy: EventPublisher,
    settings: Settings,
    tmp_path: Path,
) -> None:
    past = time() - 10
    await policy.publish_durable(allowed(call_id="ended", at=past, deadline=past + 5))
    await policy.publish_durable(allowed(call_id="open", at=past, deadline=past + 3600))
    async with events_of("executor", settings, tmp_path) as executor:
        await executor.publish_durable(completed(call_id="ended"))
    assert await sweepers[0].sweep_once() == 0
    assert await named(operator) == []
    assert await sweepers[0].ledger.store.read_number(ALL_CUSTOMERS, MARK) == pytest.approx(
        past, abs=1e-3
    )


async def test_a_sweep_continues_from_where_every_call_had_ended(
    sweepers: list[UnresolvedCallSweeper], operator: Bus, policy: EventPublisher
) -> None:
    past = time() - 10
    await sweepers[0].ledger.store.write_number(ALL_CUSTOMERS, MARK, past)
    await policy.publish_durable(allowed(call_id="older", at=past - 100, deadline=past - 90))
    await policy.publish_durable(allowed(call_id="newer", at=past + 1, deadline=past + 2))
    assert await sweepers[0].sweep_once() == 1
    assert [row[0] for row in await named(operator)] == ["newer"]
    assert await sweepers[0].ledger.store.read_number(ALL_CUSTOMERS, MARK) > past + 5


async def test_only_one_replica_sweeps_at_a_time(
    sweepers: list[UnresolvedCallSweeper], policy: EventPublisher
) -> None:
    await policy.publish_durable(allowed(at=time() - 10, deadline=time() - 5))
    assert await sweepers[0].ledger.store.lock(ALL_CUSTOMERS, "another", 60.0)
    assert await sweepers[1].sweep_once() == 0
    await sweepers[0].ledger.store.unlock(ALL_CUSTOMERS, "another")
    assert await sweepers[1].sweep_once() == 1
