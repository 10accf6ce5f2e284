"""A call whose deadline passes while its intent is recorded: not executed, and refunded."""

import asyncio
import json
import time
from typing import Any

import pytest

from harness.services.ledger_state import counters
from harness.services.policy_replicas import PolicyReplicas, declared, last_event
from harness.waits import until, until_async
from toolbus_common.config import Budget, Period
from toolbus_common.contracts import CallAllowed, Event
from toolbus_common.errors import OutcomeUnknownError
from toolbus_common.nats.connection import Bus

COUNTER = "budget:key:bot:usd:day:UTC"


@pytest.fixture
async def priced_policy(policy: PolicyReplicas) -> PolicyReplicas:
    """Charge calls of the key `bot`."""
    budget = Budget(usd=1, per=Period.DAY)
    configuration = declared(approve=(), budget=budget)
    await policy.declare(configuration.model_copy(update={"prices": {"docs__*": 0.01}}))
    return policy


async def test_an_intent_recorded_after_the_deadline_runs_nothing(
    priced_policy: PolicyReplicas,
    operator: Bus,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded: list[CallAllowed] = []

    def slowly(record: Any) -> Any:
        async def late(event: Event) -> None:
            await record(event)
            if isinstance(event, CallAllowed):
                recorded.append(event)
                await until(lambda: time.time() > event.deadline, "the deadline passes")

        return lambda event: asyncio.ensure_future(late(event))

    for service in priced_policy.policies:
        monkeypatch.setattr(
            service.events, "publish_durable", slowly(service.events.publish_durable)
        )
    with pytest.raises(OutcomeUnknownError):
        await priced_policy.request("read", seconds=1.0)
    # Ingress may have replied itself: the record states the same, at no charge.
    failed = json.loads(
        await until_async(lambda: last_event(operator, "call.failed"), "the outcome is recorded")
    )
    assert (failed["code"], failed["sent"], failed["charge"]) == ("outcome_unknown", False, 0)

    async def refunded() -> bool:
        return (await counters(valkey_url, COUNTER))["reserved"] == 0

    await until_async(refunded, "it is refunded")
    assert recorded
    assert (await counters(valkey_url, COUNTER))["spent"] == 0
    assert priced_policy.reached == []
