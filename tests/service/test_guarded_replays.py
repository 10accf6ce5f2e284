"""Replayed outcomes on a real bus: the guards that apply now check them."""

import json
from typing import Any

import pytest

from harness.services.policy_replicas import PolicyReplicas, declared, last_event
from harness.waits import until_async
from toolbus_common.calls.outcome_store import OutcomeStore, ReturnedResult
from toolbus_common.config import Configuration, Guard
from toolbus_common.contracts import REPLAYED, CallAdmitted, CallError, CallResult
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import (
    GuardBlockedError,
    IdempotencyConflictError,
    ToolbusError,
    UpstreamRefusedError,
)
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import OUTCOMES

TOKEN = "ghp_1pqnpZSYlnhWDmkBdrVqvIWIQG8zJy3VkQ9r"
OTHER = "ghp_8sNfQ2LkXbVt7RzYcWm4HpJd1GaE6uTo3iKq"
ONCE: dict[str, Any] = {"tool": "read", "idempotency_key": "order-17"}
RESULT = CallResult(
    json.dumps({"content": [{"type": "text", "text": TOKEN}], "requestState": TOKEN}).encode()
)
ERROR = CallError(UpstreamRefusedError(f"refused: {TOKEN}", sent=True))


def guarded(**guards: dict[str, Any]) -> Configuration:
    """Return a configuration whose key has these guards."""
    every = {
        name: Guard.model_validate({"kind": "secrets", **fields}) for name, fields in guards.items()
    }
    return declared(approve=[], guards=[*every]).model_copy(update={"guards": every})


async def answering(policy: PolicyReplicas, result: ReturnedResult) -> None:
    """Let the server of this test return a result, and store it as the outcome."""
    outcomes = OutcomeStore(await policy.executor.bucket(OUTCOMES), policy.executor.spawn)

    async def end(call: CallAdmitted, _context: CallContext) -> Reply:
        if call.claim is not None:
            await outcomes.end(call, call.claim, result, sent=True)
        return result

    policy.ends = end


async def error_of(policy: PolicyReplicas, **given: Any) -> ToolbusError:
    """Return the error of a call."""
    with pytest.raises(ToolbusError) as caught:
        await policy.request(**given)
    return caught.value


async def test_a_guard_that_was_declared_since_checks_the_stored_outcome(
    policy: PolicyReplicas, operator: Bus
) -> None:
    await answering(policy, RESULT)
    await policy.declare(guarded())
    assert isinstance(await policy.request(**ONCE), CallResult)
    await policy.declare(guarded(later={"on": ["results"], "action": "redact"}))
    replayed = await policy.request(**ONCE)
    assert isinstance(replayed, CallResult)
    found = json.loads(replayed.body)
    assert found["content"][0]["text"].startswith("[redacted:github-pat:")
    assert found["requestState"] == TOKEN, "only the server reads it"
    assert found["_meta"][REPLAYED] is True
    event = json.loads(await until_async(lambda: last_event(operator, "call.replayed"), "it"))
    assert [each["verdict"] for each in json.loads(event["guards"])] == ["redacted"]
    await policy.declare(guarded(later={"on": ["results"], "action": "block"}))
    error = await error_of(policy, **ONCE)
    assert isinstance(error, GuardBlockedError)
    assert TOKEN not in json.dumps(error.data)
    assert error.data["replayed"] is True
    assert len(policy.reached) == 1


async def test_a_guard_that_was_declared_since_checks_a_stored_error(
    policy: PolicyReplicas,
) -> None:
    await answering(policy, ERROR)
    await policy.declare(guarded())
    assert TOKEN in (await error_of(policy, **ONCE)).reason
    await policy.declare(guarded(later={"on": ["results"], "action": "redact"}))
    error = await error_of(policy, **ONCE)
    assert isinstance(error, UpstreamRefusedError)
    assert TOKEN not in error.reason
    assert "[redacted:github-pat:" in error.reason
    assert len(policy.reached) == 1


async def test_equal_requests_are_equal_in_every_run_and_under_other_guards(
    policy: PolicyReplicas,
) -> None:
    await answering(policy, CallResult(b"{}"))
    same: dict[str, Any] = {**ONCE, "arguments": {"query": f"use {TOKEN}"}}
    other: dict[str, Any] = {**ONCE, "arguments": {"query": f"use {OTHER}"}}
    for first in ("redact", "flag"):
        again = {"idempotency_key": f"order of {first}"}
        await policy.declare(guarded(keys={"on": ["arguments"], "action": first}))
        await policy.request(**{**same, **again}, run="run-1")
        for now in ("flag", "redact"):
            await policy.declare(guarded(keys={"on": ["arguments"], "action": now}))
            for run in ("run-1", "run-2", ""):
                replayed = await policy.request(**{**same, **again}, run=run)
                assert isinstance(replayed, CallResult)
                assert json.loads(replayed.body)["_meta"][REPLAYED] is True
                error = await error_of(policy, **{**other, **again}, run=run)
                assert isinstance(error, IdempotencyConflictError)
    assert len(policy.reached) == 2
