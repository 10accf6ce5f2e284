"""Approvals as tasks on a real bus, over two replicas: waited for, made once, taken back."""

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
from toolbus_common.contracts.replies import ReplyChannel
from toolbus_common.errors import (
    ApprovalRequiredError,
)
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import TASKS
from toolbus_policy.approvals.tasks import service as task_service

either_family = pytest.mark.parametrize("form", [MODERN, LEGACY], ids=["modern", "legacy"])


# -- begun, approved, made ------------------------------------------------------------------------


@either_family
async def test_a_call_waits_as_a_task_and_is_made_once_when_it_is_approved(
    at_work: PolicyReplicas, form: dict[str, Any]
) -> None:
    task = await created_task(at_work, **form)
    waiting = await task_state(at_work, task, **form)
    assert waiting["status"] == "working"
    assert f"/approvals/{approval_of(task)}" in waiting["statusMessage"]
    assert (await at_work.the_one()).id == approval_of(task)
    assert at_work.reached == []
    await at_work.approve(approval_of(task))
    assert (await final_state(at_work, task, **form))["status"] == "completed"
    for _ in range(6):  # whichever replica is asked
        assert (await task_state(at_work, task, **form))["status"] == "completed"
    (made,) = at_work.reached
    assert (json.loads(made.arguments), made.key) == ({"page": 7}, "bot")
    assert await required(at_work) != approval_of(task), "single use"


async def test_a_stateless_client_finds_the_result_in_its_task(at_work: PolicyReplicas) -> None:
    task = await created_task(at_work, **MODERN)
    await at_work.approve(approval_of(task))
    found = await final_state(at_work, task)
    assert found["result"] == {"page": 7}
    assert found["resultType"] == "complete"
    assert found["ttlMs"] > 0
    assert "ttl" not in found


async def test_a_client_with_a_session_waits_for_the_result_of_its_task(
    at_work: PolicyReplicas,
) -> None:
    task = await created_task(at_work, **LEGACY)
    waiting = asyncio.create_task(task_request(at_work, "result", task, **LEGACY))
    await at_work.approve(approval_of(task))
    final = await waiting
    assert isinstance(final, CallResult)
    assert json.loads(final.body) == {"page": 7}
    found = await task_state(at_work, task, **LEGACY)
    assert not {"result", "resultType", "ttlMs"} & set(found)


async def test_a_result_nobody_has_approved_in_time_is_to_be_asked_for_again(
    at_work: PolicyReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_service, "MARGIN_SECONDS", 29.5)  # of the 30 s this request has
    task = await created_task(at_work, **LEGACY)
    with pytest.raises(ApprovalRequiredError, match="is not approved yet") as caught:
        await task_request(at_work, "result", task, seconds=30, **LEGACY)
    assert caught.value.data["approval"] == approval_of(task)


async def test_the_same_call_made_again_is_the_same_task(at_work: PolicyReplicas) -> None:
    tasks = {await created_task(at_work, **MODERN) for _ in range(6)}
    (task,) = tasks
    assert (await at_work.the_one()).id == approval_of(task)
    await at_work.approve(approval_of(task))
    await until_async(lambda: reached(at_work, 1), "the call")


async def test_a_call_that_was_refused_before_becomes_a_task_of_the_same_approval(
    at_work: PolicyReplicas,
) -> None:
    approval = await required(at_work)
    assert approval_of(await created_task(at_work, **MODERN)) == approval


async def test_of_two_calls_with_one_approval_only_one_is_made(at_work: PolicyReplicas) -> None:
    """The same call is made again at the moment a person approves."""
    for page in range(5):
        given: dict[str, Any] = {"arguments": {"page": page}}
        task = await created_task(at_work, **MODERN, **given)
        await at_work.approve(approval_of(task))
        await asyncio.gather(*(at_work.request(**given) for _ in range(6)), return_exceptions=True)
        await final_state(at_work, task)
        await until_async(partial(reached, at_work, page + 1), "the call")
        assert len(at_work.reached) == page + 1


async def test_an_approved_task_is_paid_for_and_recorded_like_any_call(
    at_work: PolicyReplicas, operator: Bus
) -> None:
    task = await created_task(at_work, **MODERN)
    await at_work.approve(approval_of(task))
    await final_state(at_work, task)
    stream = operator.client.jetstream()
    message = await stream.get_last_msg("EVENTS", "tb.event.call.allowed.acme")
    event = json.loads(message.data or b"{}")
    assert event["approval"] == approval_of(task)
    assert event["call_id"] == at_work.reached[0].call_id
    assert event["parent_id"]


async def test_nothing_kept_of_a_waiting_call_is_a_proof_of_its_key(
    at_work: PolicyReplicas,
) -> None:
    call = at_work.call(**MODERN)
    assert isinstance(await at_work.ingress.calls.request(call), TaskCreated)
    held = b"".join(await at_work.kept(TASKS))
    assert b'"key":"bot"' in held
    assert call.key_digest.encode() not in held + b64decode(json.loads(held)["call"])


# -- clients that open pages as well --------------------------------------------------------------


async def test_a_client_that_opens_pages_too_is_asked_by_its_task(at_work: PolicyReplicas) -> None:
    task = await created_task(at_work, **BOTH)
    request = await task_state(at_work, task)
    assert request["status"] == "input_required"
    ((name, question),) = request["inputRequests"].items()
    assert question["method"] == "elicitation/create"
    assert question["params"]["url"].endswith(f"/approvals/{approval_of(task)}")
    answers = {"inputResponses": {name: {"action": "accept"}}}
    assert isinstance(await task_request(at_work, "update", task, more=answers), CallResult)
    assert (await task_state(at_work, task))["status"] == "working", "asked once"
    await at_work.approve(approval_of(task))
    assert (await final_state(at_work, task))["result"] == {"page": 7}


async def test_a_client_that_opens_pages_and_takes_no_tasks_is_given_none(
    at_work: PolicyReplicas,
) -> None:
    assert isinstance(await at_work.request(capabilities=PAGES), InputRequired)
    assert isinstance(
        await at_work.request(capabilities=PAGES, extra=LEGACY["extra"]), InputRequired
    )


async def test_what_is_too_large_to_be_kept_beside_its_arguments_is_no_task(
    at_work: PolicyReplicas,
) -> None:
    extra = json.dumps({"_meta": {"x": "y" * 20_000}})
    assert await required(at_work, **MODERN, extra=extra)


# -- a server that makes a task of it -------------------------------------------------------------


@either_family
async def test_where_the_server_begins_a_task_the_waiting_one_becomes_it(
    begin: Any, form: dict[str, Any]
) -> None:
    own = {"taskId": "theirs", "status": "working"}
    flat = {"resultType": "task", **own}
    async with begin() as made:
        made.answer = TaskCreated(json.dumps(flat if form is MODERN else {"task": own}).encode())
        task = await created_task(made, **form)
        await made.approve(approval_of(task))
        await until_async(lambda: reached(made, 1), "the call")
        made.answer = CallResult(b'{"from":"the server"}')

        async def passed_on() -> bool:
            final = await task_request(made, "get", task, **form)
            return final.body == b'{"from":"the server"}'

        await until_async(passed_on, "the server's task")
        last = made.reached[-1]
        assert (last.method, json.loads(last.arguments)) == ("tasks/get", {"taskId": "theirs"})


async def test_a_call_whose_answer_never_comes_is_told_as_unknown(begin: Any) -> None:
    async with begin() as made:
        made.before_answer = asyncio.Event()
        task = await created_task(
            made, **MODERN, seconds=6
        )  # to be let through in, and then to wait
        await made.approve(approval_of(task))
        await until_async(lambda: reached(made, 1), "the call")
        found = await final_state(made, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "outcome_unknown")
        assert len(made.reached) == 1
        made.before_answer.set()


async def test_a_task_whose_call_is_extended_runs_on_past_its_first_deadline(
    begin: Any,
) -> None:
    async with begin(REAP_GRACE="0.2") as made:
        may_end = asyncio.Event()
        later = time() + 3600

        async def extend(call: CallAdmitted, reply: ReplyChannel) -> None:
            await reply.send(DeadlineExtended(later))
            await may_end.wait()
            await reply.send(CallResult(call.arguments))

        made.ends = extend
        task = await created_task(made, **MODERN, seconds=1)
        await made.approve(approval_of(task))
        await until_async(partial(reached, made, 1), "the call is made")

        async def extended() -> bool:
            kept = [json.loads(each) for each in await made.kept(TASKS)]
            return any(each["ends"] > later for each in kept)

        await until_async(extended, "its task is kept until the later deadline")
        (call,) = made.reached
        await until_async(partial(_over, call.deadline + 2), "the first deadline is long over")
        assert (await task_state(made, task, **MODERN))["status"] == "working"
        may_end.set()
        assert (await final_state(made, task, **MODERN))["status"] == "completed"


async def _over(moment: float) -> bool:
    return time() > moment
