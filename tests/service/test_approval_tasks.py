"""Approvals as tasks on a real bus, with two replicas: waiting, approval, execution once."""

import asyncio
import json
from base64 import b64decode
from functools import partial
from time import time
from typing import Any

import pytest

from harness.services.approval_tasks import (
    BOTH,
    LEGACY,
    MODERN,
    approval_of,
    created_task,
    final_state,
    reached,
    task_request,
    task_state,
)
from harness.services.policy_replicas import PAGES, PolicyReplicas, required
from harness.waits import until_async
from toolbus_common.contracts import (
    CallAdmitted,
    CallResult,
    DeadlineExtended,
    InputRequired,
    TaskCreated,
)
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import (
    ApprovalRequiredError,
)
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import TASKS
from toolbus_policy.approvals.tasks import service as task_service

either_family = pytest.mark.parametrize("form", [MODERN, LEGACY], ids=["modern", "legacy"])


# -- created, approved, executed -------------------------------------------------------------------


@either_family
async def test_a_call_waits_as_a_task_and_runs_once_when_it_is_approved(
    policy: PolicyReplicas, form: dict[str, Any]
) -> None:
    task = await created_task(policy, **form)
    waiting = await task_state(policy, task, **form)
    assert waiting["status"] == "working"
    assert f"/approvals/{approval_of(task)}" in waiting["statusMessage"]
    assert (await policy.the_one()).id == approval_of(task)
    assert policy.reached == []
    await policy.approve(approval_of(task))
    assert (await final_state(policy, task, **form))["status"] == "completed"
    for _ in range(6):  # whichever replica answers
        assert (await task_state(policy, task, **form))["status"] == "completed"
    (call,) = policy.reached
    assert (json.loads(call.arguments), call.key) == ({"page": 7}, "bot")
    assert await required(policy) != approval_of(task), "single use"


async def test_a_stateless_client_gets_the_result_in_its_task(policy: PolicyReplicas) -> None:
    task = await created_task(policy, **MODERN)
    await policy.approve(approval_of(task))
    found = await final_state(policy, task)
    assert found["result"] == {"page": 7}
    assert found["resultType"] == "complete"
    assert found["ttlMs"] > 0
    assert "ttl" not in found


async def test_a_client_with_a_session_waits_for_the_result_of_its_task(
    policy: PolicyReplicas,
) -> None:
    task = await created_task(policy, **LEGACY)
    waiting = asyncio.create_task(task_request(policy, "result", task, **LEGACY))
    await policy.approve(approval_of(task))
    final = await waiting
    assert isinstance(final, CallResult)
    assert json.loads(final.body) == {"page": 7}
    found = await task_state(policy, task, **LEGACY)
    assert not {"result", "resultType", "ttlMs"} & set(found)


async def test_a_result_not_approved_in_time_is_an_error_with_the_approval(
    policy: PolicyReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_service, "MARGIN_SECONDS", 29.5)  # of the 30 s this request has
    task = await created_task(policy, **LEGACY)
    with pytest.raises(ApprovalRequiredError, match="is not approved yet") as caught:
        await task_request(policy, "result", task, seconds=30, **LEGACY)
    assert caught.value.data["approval"] == approval_of(task)


async def test_a_repeated_call_is_the_same_task(policy: PolicyReplicas) -> None:
    tasks = {await created_task(policy, **MODERN) for _ in range(6)}
    (task,) = tasks
    assert (await policy.the_one()).id == approval_of(task)
    await policy.approve(approval_of(task))
    await until_async(lambda: reached(policy, 1), "the call")


async def test_a_call_rejected_for_approval_before_becomes_a_task_of_the_same_approval(
    policy: PolicyReplicas,
) -> None:
    approval = await required(policy)
    assert approval_of(await created_task(policy, **MODERN)) == approval


async def test_only_one_of_two_calls_with_one_approval_runs(policy: PolicyReplicas) -> None:
    """Repeat the same call at the moment of the approval."""
    for page in range(5):
        given: dict[str, Any] = {"arguments": {"page": page}}
        task = await created_task(policy, **MODERN, **given)
        await policy.approve(approval_of(task))
        await asyncio.gather(*(policy.request(**given) for _ in range(6)), return_exceptions=True)
        await final_state(policy, task)
        await until_async(partial(reached, policy, page + 1), "the call")
        assert len(policy.reached) == page + 1


async def test_an_approved_task_is_charged_and_recorded_like_any_call(
    policy: PolicyReplicas, operator: Bus
) -> None:
    task = await created_task(policy, **MODERN)
    await policy.approve(approval_of(task))
    await final_state(policy, task)
    stream = operator.client.jetstream()
    message = await stream.get_last_msg("EVENTS", "tb.event.call.allowed.acme")
    event = json.loads(message.data or b"{}")
    assert event["approval"] == approval_of(task)
    assert event["call_id"] == policy.reached[0].call_id
    assert event["parent_id"]


async def test_the_stored_call_contains_no_key_digest(policy: PolicyReplicas) -> None:
    call = policy.call(**MODERN)
    assert isinstance(await policy.ingress.calls.request(call), TaskCreated)
    held = b"".join(await policy.kept(TASKS))
    assert b'"key":"bot"' in held
    assert call.key_digest.encode() not in held + b64decode(json.loads(held)["call"])


# -- clients that open pages as well ---------------------------------------------------------------


async def test_a_client_that_opens_pages_gets_the_request_in_its_task(
    policy: PolicyReplicas,
) -> None:
    task = await created_task(policy, **BOTH)
    request = await task_state(policy, task)
    assert request["status"] == "input_required"
    ((name, question),) = request["inputRequests"].items()
    assert question["method"] == "elicitation/create"
    assert question["params"]["url"].endswith(f"/approvals/{approval_of(task)}")
    answers = {"inputResponses": {name: {"action": "accept"}}}
    assert isinstance(await task_request(policy, "update", task, more=answers), CallResult)
    assert (await task_state(policy, task))["status"] == "working", "one request"
    await policy.approve(approval_of(task))
    assert (await final_state(policy, task))["result"] == {"page": 7}


async def test_a_client_with_pages_but_without_tasks_gets_no_task(policy: PolicyReplicas) -> None:
    assert isinstance(await policy.request(capabilities=PAGES), InputRequired)
    assert isinstance(
        await policy.request(capabilities=PAGES, extra=LEGACY["extra"]), InputRequired
    )


async def test_a_call_too_large_to_store_gets_no_task(policy: PolicyReplicas) -> None:
    extra = json.dumps({"_meta": {"x": "y" * 20_000}})
    assert await required(policy, **MODERN, extra=extra)


# -- a server that creates a task ------------------------------------------------------------------


@either_family
async def test_the_waiting_task_becomes_the_task_of_the_server(
    start_policy: Any, form: dict[str, Any]
) -> None:
    own = {"taskId": "theirs", "status": "working"}
    flat = {"resultType": "task", **own}
    async with start_policy() as policy:
        policy.answer = TaskCreated(json.dumps(flat if form is MODERN else {"task": own}).encode())
        task = await created_task(policy, **form)
        await policy.approve(approval_of(task))
        await until_async(lambda: reached(policy, 1), "the call")
        policy.answer = CallResult(b'{"from":"the server"}')

        async def passed_on() -> bool:
            final = await task_request(policy, "get", task, **form)
            return final.body == b'{"from":"the server"}'

        await until_async(passed_on, "the server's task")
        last = policy.reached[-1]
        assert (last.method, json.loads(last.arguments)) == ("tasks/get", {"taskId": "theirs"})


async def test_a_call_without_an_answer_ends_as_unknown(start_policy: Any) -> None:
    async with start_policy() as policy:
        policy.before_answer = asyncio.Event()
        # Time for the admission, and then for the wait.
        task = await created_task(policy, **MODERN, seconds=6)
        await policy.approve(approval_of(task))
        await until_async(lambda: reached(policy, 1), "the call")
        found = await final_state(policy, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "outcome_unknown")
        assert len(policy.reached) == 1
        policy.before_answer.set()


async def test_a_task_of_an_extended_call_continues_past_its_first_deadline(
    start_policy: Any,
) -> None:
    async with start_policy(OUTCOME_GRACE="0.2") as policy:
        may_end = asyncio.Event()
        later = time() + 3600

        async def extend(call: CallAdmitted, context: CallContext) -> Reply:
            await context.send(DeadlineExtended(later))
            await may_end.wait()
            return CallResult(call.arguments)

        policy.ends = extend
        task = await created_task(policy, **MODERN, seconds=1)
        await policy.approve(approval_of(task))
        await until_async(partial(reached, policy, 1), "the call is made")

        async def extended() -> bool:
            tasks = [json.loads(each) for each in await policy.kept(TASKS)]
            return any(each["ends"] > later for each in tasks)

        await until_async(extended, "the task is stored until the later deadline")
        (call,) = policy.reached
        await until_async(partial(_over, call.deadline + 2), "the first deadline is long over")
        assert (await task_state(policy, task, **MODERN))["status"] == "working"
        may_end.set()
        assert (await final_state(policy, task, **MODERN))["status"] == "completed"


async def _over(moment: float) -> bool:
    return time() > moment
