"""Guards in policy on a real bus: before rules, digests, approvals and intents see the call."""

import json
from hashlib import sha256
from typing import Any

import pytest

from harness.services.approval_tasks import MODERN, approval_of, created_task, final_state
from harness.services.policy_replicas import PolicyReplicas, declared, last_event, required
from harness.waits import until_async
from toolbus_common.config import Configuration, Guard
from toolbus_common.config.access.rules import Rule
from toolbus_common.contracts import CallResult
from toolbus_common.contracts.model_calls import CHAT, ModelCall
from toolbus_common.errors import (
    ApprovalRequiredError,
    GuardBlockedError,
    GuardFailedError,
    IdempotencyConflictError,
    RuleDeniedError,
    ToolbusError,
)
from toolbus_common.guards.placeholders import PLACEHOLDER
from toolbus_common.guards.service_inspector import placeholders_of
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import APPROVALS, TASKS
from toolbus_policy.models.requests import BYTES_PER_TOKEN

TOKEN = "ghp_1pqnpZSYlnhWDmkBdrVqvIWIQG8zJy3VkQ9r"
OTHER = "ghp_8sNfQ2LkXbVt7RzYcWm4HpJd1GaE6uTo3iKq"
SENT: dict[str, Any] = {"arguments": {"query": f"use {TOKEN}"}}


def guarded(key: dict[str, Any] | None = None, **guards: dict[str, Any]) -> Configuration:
    """Return a configuration whose key has these guards. The key's arguments are recorded."""
    every = {
        name: Guard.model_validate({"kind": "secrets", "on": ["arguments"], **fields})
        for name, fields in guards.items()
    }
    made = declared(**{"content": "full", "approve": [], "guards": [*every], **(key or {})})
    return made.model_copy(update={"guards": every})


async def event(operator: Bus, name: str) -> dict[str, Any]:
    """Return the newest event of this name, once there is one."""
    found = await until_async(lambda: last_event(operator, name), name)
    return dict(json.loads(found))


def checks_in(event: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Return guard, verdict and findings of each check in an event."""
    checks = json.loads(event["guards"])
    return [(each["guard"], each["verdict"], each["findings"]) for each in checks]


async def refusal(policy: PolicyReplicas, **given: Any) -> ToolbusError:
    """Return the error of a call."""
    with pytest.raises(ToolbusError) as caught:
        await policy.request(**given)
    return caught.value


async def test_the_server_and_the_intent_get_the_redacted_arguments(
    policy: PolicyReplicas, operator: Bus
) -> None:
    await policy.declare(guarded(keys={"action": "redact"}))
    assert isinstance(await policy.request(**SENT), CallResult)
    (call,) = policy.reached
    query = json.loads(call.arguments)["query"]
    assert PLACEHOLDER.fullmatch(query.removeprefix("use "))
    intent = await event(operator, "call.allowed")
    assert intent["arguments_digest"] == sha256(call.arguments).hexdigest()
    assert intent["arguments_bytes"] == len(call.arguments)
    assert checks_in(intent) == [("keys", "redacted", ["github-pat"])]
    assert TOKEN not in json.dumps(intent)


async def test_rules_read_the_redacted_arguments(policy: PolicyReplicas) -> None:
    rules = {
        "raw": Rule(
            cedar="forbid(principal, action, resource) when "
            '{ context.arguments has query && context.arguments.query like "*ghp_*" };'
        ),
    }
    await policy.declare(guarded(keys={"action": "redact"}).model_copy(update={"rules": rules}))
    assert isinstance(await policy.request(**SENT), CallResult)
    await policy.declare(guarded(keys={}).model_copy(update={"rules": rules}))
    assert isinstance(await refusal(policy, **SENT), RuleDeniedError)


async def test_a_blocked_call_names_its_guard_and_records_nothing_of_the_content(
    policy: PolicyReplicas, operator: Bus
) -> None:
    await policy.declare(guarded(first={"action": "flag"}, keys={"action": "block"}))
    error = await refusal(policy, **SENT)
    assert isinstance(error, GuardBlockedError)
    assert error.data == {"guard": "keys", "phase": "arguments", "findings": ["github-pat"]}
    assert policy.reached == []
    denied = await event(operator, "call.denied")
    assert checks_in(denied) == [
        ("first", "flagged", ["github-pat"]), ("keys", "blocked", ["github-pat"]),
    ]  # fmt: skip
    assert (denied["code"], denied["arguments"]) == ("guard_blocked", "")
    assert TOKEN not in json.dumps(denied)


async def test_a_call_that_is_not_granted_records_nothing_that_guards_would_have_removed(
    policy: PolicyReplicas, operator: Bus
) -> None:
    await policy.declare(guarded({"deny": ["docs__burn"]}, keys={"action": "redact"}))
    await refusal(policy, **SENT)
    assert TOKEN not in json.dumps(await event(operator, "call.denied"))


async def test_a_guard_can_ask_for_an_approval_that_names_it(policy: PolicyReplicas) -> None:
    await policy.declare(guarded(keys={"action": "ask"}))
    assert isinstance(await policy.request(), CallResult), "nothing was found"
    approval = await required(policy, **SENT)
    assert (await policy.the_one()).cause == "guard:keys"
    error = await refusal(policy, **SENT)
    assert isinstance(error, ApprovalRequiredError)
    assert "The guard 'keys' found github-pat" in error.reason
    await policy.approve(approval)
    assert isinstance(await policy.request(**SENT), CallResult)
    assert await required(policy, **SENT) != approval, "single use"


async def test_an_approval_is_for_the_redacted_arguments(policy: PolicyReplicas) -> None:
    await policy.declare(guarded({"approve": ["docs__burn"]}, keys={"action": "redact"}))
    approval = await required(policy, **SENT)
    assert await required(policy, **SENT) == approval, "equal values have equal placeholders"
    assert TOKEN not in (await policy.the_one()).arguments
    other = {"arguments": {"query": f"use {OTHER}"}}
    assert await required(policy, **other) != approval
    await policy.approve(approval)
    assert isinstance(await policy.request(**SENT), CallResult)


async def test_a_guard_declared_after_the_approval_applies_to_the_repeated_call(
    policy: PolicyReplicas,
) -> None:
    approve = {"approve": ["docs__burn"]}
    await policy.declare(guarded(approve, keys={"action": "flag"}))
    await policy.approve(await required(policy, **SENT))
    await policy.declare(guarded(approve, keys={"action": "block"}))
    assert isinstance(await refusal(policy, **SENT), GuardBlockedError)
    assert policy.reached == []


async def test_the_mode_observe_changes_nothing(policy: PolicyReplicas, operator: Bus) -> None:
    actions = ("block", "redact", "ask")
    await policy.declare(guarded(**{each: {"action": each, "mode": "observe"} for each in actions}))
    assert isinstance(await policy.request(**SENT), CallResult)
    assert json.loads(policy.reached[0].arguments) == SENT["arguments"]
    found = checks_in(await event(operator, "call.allowed"))
    assert [verdict for _, verdict, _ in found] == ["would_block", "would_redact", "would_ask"]


async def test_an_idempotency_key_is_bound_to_the_redacted_arguments(
    policy: PolicyReplicas,
) -> None:
    await policy.declare(guarded(keys={"action": "redact"}))
    once = {"idempotency_key": "once"}
    await policy.request(**SENT, **once)
    # The executor of this test stores no outcome, so the first call counts as unfinished.
    assert not isinstance(await refusal(policy, **SENT, **once), IdempotencyConflictError)
    other = {"arguments": {"query": f"use {OTHER}"}}
    assert isinstance(await refusal(policy, **other, **once), IdempotencyConflictError)


DOWN = {"kind": "http", "url": "https://guard.example/check", "timeout": 5}


async def test_a_service_that_is_down_rejects_if_its_guard_fails_closed(
    policy: PolicyReplicas, operator: Bus
) -> None:
    await policy.declare(guarded(shield={**DOWN, "action": "block"}))
    error = await refusal(policy, **SENT)
    assert isinstance(error, GuardFailedError)
    assert "'shield'" in error.reason
    assert policy.reached == []
    denied = await event(operator, "call.denied")
    assert checks_in(denied) == [("shield", "failed", [])]
    assert TOKEN not in json.dumps(denied)


async def test_a_guard_that_fails_open_allows_calls_with_an_alarm_while_its_service_is_down(
    policy: PolicyReplicas, operator: Bus
) -> None:
    await policy.declare(guarded(shield={**DOWN, "action": "block", "fail": "open"}))
    assert isinstance(await policy.request(**SENT), CallResult)
    failed = await event(operator, "guard.failed")
    assert (failed["guard"], failed["phase"], failed["key"]) == ("shield", "arguments", "bot")
    assert checks_in(await event(operator, "call.allowed")) == [("shield", "failed", [])]


async def test_answers_to_requests_of_the_server_are_checked_but_not_its_own_state(
    policy: PolicyReplicas,
) -> None:
    await policy.declare(guarded(keys={"action": "redact"}))
    extra = {"inputResponses": {"q": {"content": {"text": TOKEN}}}, "requestState": OTHER}
    await policy.request(extra=json.dumps(extra))
    sent = json.loads(policy.reached[0].extra)
    assert sent["requestState"] == OTHER
    assert PLACEHOLDER.fullmatch(sent["inputResponses"]["q"]["content"]["text"])
    assert json.loads(policy.reached[0].arguments) == {"page": 7}


async def test_a_uri_that_contains_a_secret_is_not_read(policy: PolicyReplicas) -> None:
    await policy.declare(guarded(keys={"action": "redact"}))
    uri = f"https://docs.example/?q={TOKEN}"
    given: dict[str, Any] = {"tool": uri, "method": "resources/read", "arguments": {"uri": uri}}
    assert isinstance(await refusal(policy, **given), GuardBlockedError)
    clean: dict[str, Any] = {**given, "tool": "docs://1", "arguments": {"uri": "docs://1"}}
    assert isinstance(await policy.request(**clean), CallResult)
    assert len(policy.reached) == 1


async def test_executor_receives_the_guards_of_results_and_the_run_of_placeholders(
    policy: PolicyReplicas,
) -> None:
    await policy.declare(
        guarded(
            before={"action": "flag"},
            after={"on": ["results"], "action": "flag"},
            both={"on": ["arguments", "results"], "action": "redact", "restore": ["docs__read"]},
        )
    )
    await policy.request("read", run="run-1", **SENT)
    (call,) = policy.reached
    assert (call.guards, call.run) == (("after", "both", "before"), "run-1")
    placeholders = placeholders_of(policy.executor)
    back = await placeholders.restore(call.principal_id, call.run, call.arguments, {"both"})
    assert json.loads(back) == SENT["arguments"]
    for principal, run, guards in (
        (call.principal_id, "run-2", {"both"}),
        ("foreign", call.run, {"both"}),
        (call.principal_id, call.run, {"after"}),
    ):
        kept = await placeholders.restore(principal, run, call.arguments, guards)
        assert kept == call.arguments


async def test_a_call_without_guards_is_dispatched_as_it_is(
    policy: PolicyReplicas, operator: Bus
) -> None:
    await policy.declare(guarded({"guards": []}, keys={"action": "block"}))
    await policy.request(**SENT)
    (call,) = policy.reached
    assert (json.loads(call.arguments), call.guards, call.run) == (SENT["arguments"], (), "")
    assert (await event(operator, "call.allowed"))["guards"] == ""


@pytest.mark.parametrize("later", ["flag", "block"])
async def test_the_guards_check_a_deferred_call_again_when_it_is_approved(
    policy: PolicyReplicas, later: str
) -> None:
    approve = {"approve": ["docs__burn"]}
    await policy.declare(guarded(approve, keys={"action": "flag"}))
    task = await created_task(policy, **MODERN, **SENT)
    await policy.declare(guarded(approve, keys={"action": later}))
    await policy.approve(approval_of(task))
    state = await final_state(policy, task, **MODERN)
    assert (len(policy.reached), "guard_blocked" in json.dumps(state)) == (
        (1, False) if later == "flag" else (0, True)
    )


async def test_a_deferred_call_is_stored_and_made_in_its_redacted_form(
    policy: PolicyReplicas, operator: Bus
) -> None:
    await policy.declare(guarded({"approve": ["docs__burn"]}, keys={"action": "redact"}))
    task = await created_task(policy, **MODERN, **SENT)
    for bucket in (APPROVALS, TASKS):
        assert TOKEN not in str(await policy.kept(bucket))
    await policy.approve(approval_of(task))
    assert (await final_state(policy, task, **MODERN))["status"] == "completed"
    assert PLACEHOLDER.search(policy.reached[0].arguments.decode())
    intent = await event(operator, "call.allowed")
    assert [verdict for _, verdict, _ in checks_in(intent)] == ["passed"]


PROMPT = {"model": "fast", "messages": [{"role": "user", "content": f"use {TOKEN}"}]}


def of_models(**guard: Any) -> Configuration:
    """Return a configuration with a guard of the alias of a model."""
    sections = {
        "providers": {"local": {"kind": "openai", "url": "http://127.0.0.1:9/v1"}},
        "models": {"fast": [{"provider": "local", "model": "gemma"}]},
        "model_prices": {"local/gemma": {"input": 1.0, "output": 0.0}},
        "model_guards": {"fast": ["keys"]},
    }
    made = guarded({"models": ["*"], "guards": []}, keys={"on": ["prompts"], **guard})
    return Configuration.model_validate(made.model_dump() | sections)


def prompt() -> dict[str, Any]:
    extra = ModelCall(alias="fast", output=None).encode()
    named = {"server": "local", "tool": "gemma", "method": CHAT}
    return {**named, "extra": extra, "arguments": PROMPT}


async def test_a_prompt_is_redacted_before_its_size_is_reserved(
    policy: PolicyReplicas, operator: Bus
) -> None:
    await policy.declare(of_models(action="redact"))
    await policy.request(**prompt())
    (call,) = policy.reached
    assert TOKEN not in call.arguments.decode()
    intent = await event(operator, "call.allowed")
    assert checks_in(intent) == [("keys", "redacted", ["github-pat"])]
    assert call.charge == -(-len(call.arguments) // BYTES_PER_TOKEN)


@pytest.mark.parametrize("action", ["block", "ask"])
async def test_a_prompt_that_cannot_wait_for_an_approval_is_blocked(
    policy: PolicyReplicas, action: str
) -> None:
    await policy.declare(of_models(action=action))
    assert isinstance(await refusal(policy, **prompt()), GuardBlockedError)
    assert policy.reached == []
