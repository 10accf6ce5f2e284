"""Approvals as tasks on a real bus, with two replicas: waiting, approval, execution once."""

import asyncio
import json
from base64 import b64decode
from functools import partial
from time import time
from typing import Any

import pytest

from harness.deferring import (
    BOTH,
    LEGACY,
    MODERN,
    about,
    approval_of,
    begun,
    ended,
    reached,
    told,
)
from harness.policing import PAGES, Policing, required
from harness.waiting import until_told
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


# -- created, approved, executed -------------------------------------------------------------------


@either_family
async def test_a_call_waits_as_a_task_and_runs_once_when_it_is_approved(
    at_work: Policing, form: dict[str, Any]
) -> None:
    task = await begun(at_work, **form)
    waiting = await told(at_work, task, **form)
    assert waiting["status"] == "working"
    assert f"/approvals/{approval_of(task)}" in waiting["statusMessage"]
    assert (await at_work.the_one()).id == approval_of(task)
    assert at_work.reached == []
    await at_work.approve(approval_of(task))
    assert (await ended(at_work, task, **form))["status"] == "completed"
    for _ in range(6):  # whichever replica answers
        assert (await told(at_work, task, **form))["status"] == "completed"
    (made,) = at_work.reached
    assert (json.loads(made.arguments), made.key) == ({"page": 7}, "bot")
    assert await required(at_work) != approval_of(task), "single use"


async def test_a_stateless_client_gets_the_result_in_its_task(at_work: Policing) -> None:
    task = await begun(at_work, **MODERN)
    await at_work.approve(approval_of(task))
    found = await ended(at_work, task)
    assert found["result"] == {"page": 7}
    assert found["resultType"] == "complete"
    assert found["ttlMs"] > 0
    assert "ttl" not in found


async def test_a_client_with_a_session_waits_for_the_result_of_its_task(at_work: Policing) -> None:
    task = await begun(at_work, **LEGACY)
    waiting = asyncio.create_task(about(at_work, "result", task, **LEGACY))
    await at_work.approve(approval_of(task))
    final = await waiting
    assert isinstance(final, CallResult)
    assert json.loads(final.body) == {"page": 7}
    found = await told(at_work, task, **LEGACY)
    assert not {"result", "resultType", "ttlMs"} & set(found)


async def test_a_result_not_approved_in_time_is_an_error_with_the_approval(
    at_work: Policing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_service, "MARGIN_SECONDS", 29.5)  # of the 30 s this request has
    task = await begun(at_work, **LEGACY)
    with pytest.raises(ApprovalRequiredError, match="is not approved yet") as caught:
        await about(at_work, "result", task, seconds=30, **LEGACY)
    assert caught.value.data["approval"] == approval_of(task)


async def test_a_repeated_call_is_the_same_task(at_work: Policing) -> None:
    tasks = {await begun(at_work, **MODERN) for _ in range(6)}
    (task,) = tasks
    assert (await at_work.the_one()).id == approval_of(task)
    await at_work.approve(approval_of(task))
    await until_told(lambda: reached(at_work, 1), "the call")


async def test_a_call_rejected_for_approval_before_becomes_a_task_of_the_same_approval(
    at_work: Policing,
) -> None:
    approval = await required(at_work)
    assert approval_of(await begun(at_work, **MODERN)) == approval


async def test_only_one_of_two_calls_with_one_approval_runs(at_work: Policing) -> None:
    """Repeat the same call at the moment of the approval."""
    for page in range(5):
        given: dict[str, Any] = {"arguments": {"page": page}}
        task = await begun(at_work, **MODERN, **given)
        await at_work.approve(approval_of(task))
        await asyncio.gather(*(at_work.request(**given) for _ in range(6)), return_exceptions=True)
        await ended(at_work, task)
        await until_told(partial(reached, at_work, page + 1), "the call")
        assert len(at_work.reached) == page + 1


async def test_an_approved_task_is_charged_and_recorded_like_any_call(
    at_work: Policing, operator: Bus
) -> None:
    task = await begun(at_work, **MODERN)
    await at_work.approve(approval_of(task))
    await ended(at_work, task)
    stream = operator.client.jetstream()
    message = await stream.get_last_msg("EVENTS", "tb.event.call.allowed.acme")
    event = json.loads(message.data or b"{}")
    assert event["approval"] == approval_of(task)
    assert event["call_id"] == at_work.reached[0].call_id
    assert event["parent_id"]


async def test_the_stored_call_contains_no_key_digest(
    at_work: Policing,
) -> None:
    call = at_work.call(**MODERN)
    assert isinstance(await at_work.ingress.calls.request(call), TaskCreated)
    held = b"".join(await at_work.kept(TASKS))
    assert b'"key":"bot"' in held
    assert call.key_digest.encode() not in held + b64decode(json.loads(held)["call"])


# -- clients that open pages as well ---------------------------------------------------------------


async def test_a_client_that_opens_pages_gets_the_request_in_its_task(at_work: Policing) -> None:
    task = await begun(at_work, **BOTH)
    request = await told(at_work, task)
    assert request["status"] == "input_required"
    ((name, question),) = request["inputRequests"].items()
    assert question["method"] == "elicitation/create"
    assert question["params"]["url"].endswith(f"/approvals/{approval_of(task)}")
    answers = {"inputResponses": {name: {"action": "accept"}}}
    assert isinstance(await about(at_work, "update", task, more=answers), CallResult)
    assert (await told(at_work, task))["status"] == "working", "one request"
    await at_work.approve(approval_of(task))
    assert (await ended(at_work, task))["result"] == {"page": 7}


async def test_a_client_with_pages_but_without_tasks_gets_no_task(
    at_work: Policing,
) -> None:
    assert isinstance(await at_work.request(capabilities=PAGES), InputRequired)
    assert isinstance(
        await at_work.request(capabilities=PAGES, extra=LEGACY["extra"]), InputRequired
    )


async def test_a_call_too_large_to_store_gets_no_task(
    at_work: Policing,
) -> None:
    extra = json.dumps({"_meta": {"x": "y" * 20_000}})
    assert await required(at_work, **MODERN, extra=extra)


# -- a server that creates a task ------------------------------------------------------------------


@either_family
async def test_the_waiting_task_becomes_the_task_of_the_server(
    begin: Any, form: dict[str, Any]
) -> None:
    own = {"taskId": "theirs", "status": "working"}
    flat = {"resultType": "task", **own}
    async with begin() as made:
        made.answer = TaskCreated(json.dumps(flat if form is MODERN else {"task": own}).encode())
        task = await begun(made, **form)
        await made.approve(approval_of(task))
        await until_told(lambda: reached(made, 1), "the call")
        made.answer = CallResult(b'{"from":"the server"}')

        async def passed_on() -> bool:
            final = await about(made, "get", task, **form)
            return final.body == b'{"from":"the server"}'

        await until_told(passed_on, "the server's task")
        last = made.reached[-1]
        assert (last.method, json.loads(last.arguments)) == ("tasks/get", {"taskId": "theirs"})


async def test_a_call_without_an_answer_ends_as_unknown(begin: Any) -> None:
    async with begin() as made:
        made.before_answer = asyncio.Event()
        task = await begun(
            made, **MODERN, seconds=6
        )  # time for the admission, and then for the wait
        await made.approve(approval_of(task))
        await until_told(lambda: reached(made, 1), "the call")
        found = await ended(made, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "outcome_unknown")
        assert len(made.reached) == 1
        made.before_answer.set()


async def test_a_task_of_an_extended_call_continues_past_its_first_deadline(
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
        task = await begun(made, **MODERN, seconds=1)
        await made.approve(approval_of(task))
        await until_told(partial(reached, made, 1), "the call is made")

        async def extended() -> bool:
            kept = [json.loads(each) for each in await made.kept(TASKS)]
            return any(each["ends"] > later for each in kept)

        await until_told(extended, "the task is stored until the later deadline")
        (call,) = made.reached
        await until_told(partial(_over, call.deadline + 2), "the first deadline is long over")
        assert (await told(made, task, **MODERN))["status"] == "working"
        may_end.set()
        assert (await ended(made, task, **MODERN))["status"] == "completed"


async def _over(moment: float) -> bool:
    return time() > moment
