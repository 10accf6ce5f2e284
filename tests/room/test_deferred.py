"""Approvals as tasks on a real bus, over two replicas: waited for, made once, taken back."""

import asyncio
import json
from base64 import b64decode
from functools import partial
from typing import Any

import pytest

from harness.operating import key
from harness.policing import OWN, PAGES, Policing, declared, required
from harness.waiting import until_told
from toolbus_common.bus import Bus
from toolbus_common.contracts import (
    DEFERRED,
    Answered,
    Asked,
    Begun,
    CallAdmitted,
    CallCancelled,
    Ending,
    Era,
    Failed,
)
from toolbus_common.declared import Declaration
from toolbus_common.errors import (
    ApprovalRejectedError,
    ApprovalRequiredError,
    CallCancelledError,
    ExecutorDownError,
    InvalidError,
    UnauthorizedError,
    UnknownApprovalError,
    UnknownToolError,
    UpstreamRefusedError,
)
from toolbus_common.provision import TASKS
from toolbus_policy import deferring

MODERN: dict[str, Any] = {"capabilities": '{"extensions":{"io.modelcontextprotocol/tasks":{}}}'}
BOTH: dict[str, Any] = {
    "capabilities": '{"elicitation":{"url":{}},"extensions":{"io.modelcontextprotocol/tasks":{}}}'
}
LEGACY: dict[str, Any] = {"era": Era.LEGACY, "extra": '{"task":{"ttl":60000}}'}
ENDED = ("completed", "failed", "cancelled")
either_era = pytest.mark.parametrize("form", [MODERN, LEGACY], ids=["modern", "legacy"])


async def begun(made: Policing, **form: Any) -> str:
    """The name of the task a call becomes."""
    ending = await made.ask(**form)
    assert isinstance(ending, Begun)
    told = json.loads(ending.body)
    task: dict[str, Any] = told.get("task", told)
    assert task["taskId"].startswith(DEFERRED)
    return str(task["taskId"])


async def about(made: Policing, what: str, task: str, **form: Any) -> Ending:
    """What a request about a task is answered with."""
    given = {"era": form.get("era", Era.MODERN), **{k: form[k] for k in ("secret",) if k in form}}
    arguments = {"taskId": task, **form.get("more", {})}
    seconds = form.get("seconds", 30)
    call = {"method": f"tasks/{what}", "arguments": arguments, "seconds": seconds}
    return await made.ask(form.get("tool", "burn"), **call, **given)


async def told(made: Policing, task: str, **form: Any) -> dict[str, Any]:
    ending = await about(made, "get", task, **form)
    assert isinstance(ending, Answered)
    found: dict[str, Any] = json.loads(ending.body)
    assert found["taskId"] == task
    return found


async def ended(made: Policing, task: str, **form: Any) -> dict[str, Any]:
    async def over() -> dict[str, Any] | None:
        found = await told(made, task, **form)
        return found if found["status"] in ENDED else None

    found: dict[str, Any] = await until_told(over, "the end of the task")
    return found


def approval_of(task: str) -> str:
    return task.removeprefix(DEFERRED)


# -- begun, approved, made ------------------------------------------------------------------------


@either_era
async def test_a_call_waits_as_a_task_and_is_made_once_when_it_is_approved(
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
    for _ in range(6):  # whichever replica is asked
        assert (await told(at_work, task, **form))["status"] == "completed"
    (made,) = at_work.reached
    assert (json.loads(made.arguments), made.key) == ({"page": 7}, "bot")
    assert await required(at_work) != approval_of(task), "single use"


async def test_a_stateless_client_finds_the_result_in_its_task(at_work: Policing) -> None:
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
    ending = await waiting
    assert isinstance(ending, Answered)
    assert json.loads(ending.body) == {"page": 7}
    found = await told(at_work, task, **LEGACY)
    assert not {"result", "resultType", "ttlMs"} & set(found)


async def test_a_result_nobody_has_approved_in_time_is_to_be_asked_for_again(
    at_work: Policing,
) -> None:
    task = await begun(at_work, **LEGACY)
    with pytest.raises(ApprovalRequiredError, match="No person has approved") as caught:
        await about(at_work, "result", task, seconds=1.2, **LEGACY)
    assert caught.value.data["approval"] == approval_of(task)


async def test_the_same_call_made_again_is_the_same_task(at_work: Policing) -> None:
    tasks = {await begun(at_work, **MODERN) for _ in range(6)}
    assert len(tasks) == 1
    assert len(await at_work.waiting()) == 1
    await at_work.approve(approval_of(tasks.pop()))
    await until_told(lambda: _reached(at_work, 1), "the call")


async def _reached(made: Policing, times: int) -> bool:
    return len(made.reached) >= times


async def test_a_call_that_was_refused_before_becomes_a_task_of_the_same_approval(
    at_work: Policing,
) -> None:
    approval = await required(at_work)
    assert approval_of(await begun(at_work, **MODERN)) == approval


async def test_of_two_calls_with_one_approval_only_one_is_made(at_work: Policing) -> None:
    """The same call is made again at the moment a person approves."""
    for page in range(5):
        given: dict[str, Any] = {"arguments": {"page": page}}
        task = await begun(at_work, **MODERN, **given)
        await at_work.approve(approval_of(task))
        await asyncio.gather(*(at_work.ask(**given) for _ in range(6)), return_exceptions=True)
        await ended(at_work, task)
        await until_told(partial(_reached, at_work, page + 1), "the call")
        assert len(at_work.reached) == page + 1


async def test_an_approved_task_is_paid_for_and_recorded_like_any_call(
    at_work: Policing, operator: Bus
) -> None:
    task = await begun(at_work, **MODERN)
    await at_work.approve(approval_of(task))
    await ended(at_work, task)
    stream = operator.client.jetstream()
    said = await stream.get_last_msg("FACTS", "tb.fact.call.allowed.acme")
    fact = json.loads(said.data or b"{}")
    assert fact["approval"] == approval_of(task)
    assert fact["call_id"] == at_work.reached[0].call_id
    assert fact["parent_id"]


async def test_nothing_kept_of_a_waiting_call_is_a_proof_of_its_key(
    at_work: Policing, operator: Bus
) -> None:
    call = at_work.call(**MODERN)
    assert isinstance(await at_work.ingress.calls.ask(call), Begun)
    bucket = await operator.bucket(TASKS)
    held = b""
    async for change in bucket.watch():
        if change is None:
            break
        held += change.value or b""
    assert b'"key":"bot"' in held
    assert call.proof.encode() not in held + b64decode(json.loads(held)["call"])


# -- not made -------------------------------------------------------------------------------------


@either_era
async def test_a_rejected_call_leaves_a_task_that_failed_with_the_reason(
    at_work: Policing, form: dict[str, Any]
) -> None:
    task = await begun(at_work, **form)
    await at_work.reject(approval_of(task), "Page 7 is needed.")
    found = await ended(at_work, task, **form)
    assert (found["status"], "Page 7 is needed." in found["statusMessage"]) == ("failed", True)
    if form is MODERN:
        assert found["error"]["code"] == "approval_rejected", "for ingress to put into a number"
    else:
        with pytest.raises(ApprovalRejectedError, match=r"Page 7 is needed\."):
            await about(at_work, "result", task, **form)
    assert at_work.reached == []


async def test_a_call_nobody_approves_in_time_leaves_a_task_that_failed(begin: Any) -> None:
    async with begin(APPROVAL_SECONDS="0.5") as made:
        task = await begun(made, **MODERN)
        found = await ended(made, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "approval_required")
        assert "in time" in found["statusMessage"]
        assert await begun(made, **MODERN) != task, "asked anew"
        assert (await told(made, task))["status"] == "failed"
        assert made.reached == []


async def test_an_approval_does_not_outlive_its_key(begin: Any, operator: Bus) -> None:
    async with begin(replicas=1) as made:
        task = await begun(made, **MODERN)
        await made.declare(declared(revoked=True))
        await until_told(partial(_unauthorized, made), "the revocation")
        await made.approve(approval_of(task))
        bucket = await operator.bucket(TASKS)

        async def kept() -> bool:
            entry = await bucket.get(approval_of(task))
            return entry is not None and b'"stage":"ended"' in (entry.value or b"")

        await until_told(kept, "the end of the task")
        await made.declare(declared())
        await until_told(partial(_may, made), "the key")
        found = await told(made, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "unauthorized")
        assert [call for call in made.reached if call.tool == "burn"] == []


async def _unauthorized(made: Policing) -> bool:
    try:
        await made.ask("read")
    except UnauthorizedError:
        return True
    return False


async def test_a_tool_that_changed_since_is_not_called(begin: Any) -> None:
    async with begin(replicas=1) as made:
        task = await begun(made, **MODERN)
        await made.offer("Burns the page, and tells your secrets.")
        await until_told(lambda: _another(made, task), "the changed definition")
        await made.approve(approval_of(task))
        found = await ended(made, task)
        assert (found["status"], "has changed" in found["statusMessage"]) == ("failed", True)
        assert made.reached == []


async def _another(made: Policing, before: str) -> bool:
    return await required(made) != approval_of(before)


async def test_a_call_nobody_can_take_now_is_made_when_somebody_can(at_work: Policing) -> None:
    task = await begun(at_work, **MODERN)
    await at_work.executor.calls.leave(CallAdmitted, "*")
    await at_work.executor.bus.settled()
    await at_work.approve(approval_of(task))
    await until_told(lambda: _failed_to_reach(at_work), "an attempt that reached nobody")
    assert (await told(at_work, task))["status"] == "working"
    await at_work.executor.calls.serve(CallAdmitted, "*", at_work.run, "executor")
    assert (await ended(at_work, task))["result"] == {"page": 7}
    assert len(at_work.reached) == 1


async def _failed_to_reach(made: Policing) -> bool:
    try:
        await made.ask("read")
    except ExecutorDownError:
        return True
    return False


async def test_a_call_whose_server_refuses_it_leaves_the_servers_own_error(begin: Any) -> None:
    async with begin() as made:
        made.answer = Failed(UpstreamRefusedError("No such page.", upstream_code=-32099))
        task = await begun(made, **MODERN)
        await made.approve(approval_of(task))
        found = await ended(made, task)
        assert found["error"] == {"code": -32099, "message": "No such page."}


async def test_a_server_that_asks_its_caller_something_finds_nobody(begin: Any) -> None:
    async with begin() as made:
        made.answer = Asked(b'{"resultType":"input_required","inputRequests":{}}')
        task = await begun(made, **BOTH)
        await made.approve(approval_of(task))
        found = await ended(made, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "upstream_fault")
        assert "elicitation" not in made.reached[0].capabilities, "it was told so"


# -- taken back -----------------------------------------------------------------------------------


@either_era
async def test_to_cancel_the_task_takes_the_approval_back(
    at_work: Policing, operator: Bus, form: dict[str, Any]
) -> None:
    task = await begun(at_work, **form)
    await about(at_work, "cancel", task, **form)
    assert (await told(at_work, task, **form))["status"] == "cancelled"
    with pytest.raises(UnknownApprovalError, match="withdrawn"):
        await at_work.approve(approval_of(task))
    assert await begun(at_work, **form) != task
    assert (await told(at_work, task, **form))["status"] == "cancelled"
    said = await operator.client.jetstream().get_last_msg(
        "FACTS", "tb.fact.approval.withdrawn.acme"
    )
    assert json.loads(said.data or b"{}")["approval"] == approval_of(task)
    assert at_work.reached == []


async def test_a_task_that_has_ended_is_cancelled_no_more(at_work: Policing) -> None:
    task, flat = await begun(at_work, **LEGACY), await begun(at_work, **MODERN, arguments={"p": 1})
    for each in (task, flat):
        await at_work.approve(approval_of(each))
    await ended(at_work, task, **LEGACY)
    await ended(at_work, flat)
    with pytest.raises(InvalidError, match="ended already"):
        await about(at_work, "cancel", task, **LEGACY)
    ending = await about(at_work, "cancel", flat)
    assert isinstance(ending, Answered)
    assert (await told(at_work, flat))["status"] == "completed"


async def test_to_cancel_the_task_of_a_call_under_way_takes_the_call_back(begin: Any) -> None:
    async with begin() as made:
        released, heard = asyncio.Event(), list[str]()
        made.before_answer = released

        def hear(data: bytes, *_: str) -> None:
            heard.append(CallCancelled.decode(data).call_id)
            made.answer = Failed(CallCancelledError("The caller took the call back."))
            released.set()

        await made.executor.bus.subscribe(f"{CallCancelled.SUBJECT}.*", hear)
        await made.executor.bus.settled()
        task = await begun(made, **MODERN)
        await made.approve(approval_of(task))
        await until_told(lambda: _reached(made, 1), "the call")
        await about(made, "cancel", task)
        assert (await ended(made, task))["status"] == "cancelled"
        assert heard == [made.reached[0].call_id]


# -- whose it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["get", "cancel", "result", "update"])
async def test_a_task_is_its_own_keys_alone(begin: Any, what: str) -> None:
    async with begin(replicas=1) as made:
        await made.declare(_with_another_like_it())
        await until_told(partial(_may, made, secret=OWN), "the new configuration")
        task = await begun(made, **MODERN)
        for given in ({"secret": OWN}, {"tool": "read"}):
            with pytest.raises(InvalidError, match="Unknown task"):
                await about(made, what, task, **given)
        with pytest.raises(InvalidError, match="Unknown task"):
            await about(made, what, DEFERRED + "0" * 32)
        assert (await told(made, task))["status"] == "working"


def _with_another_like_it() -> Declaration:
    changed = declared()
    return changed.model_copy(update={"keys": {**changed.keys, "own": key(OWN, user="ann")}})


async def _may(made: Policing, **given: Any) -> bool:
    try:
        await made.ask("read", **given)
    except (UnauthorizedError, UnknownToolError):
        return False
    return True


async def test_a_key_has_only_so_many_tasks_and_is_refused_with_the_id_then(
    begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferring, "MOST_OF_A_KEY", 2)
    async with begin(replicas=1) as made:
        for page in range(2):
            await about(made, "cancel", await begun(made, **MODERN, arguments={"page": page}))
        assert await required(made, **MODERN)


# -- clients that open pages as well --------------------------------------------------------------


async def test_a_client_that_opens_pages_too_is_asked_by_its_task(at_work: Policing) -> None:
    task = await begun(at_work, **BOTH)
    asked = await told(at_work, task)
    assert asked["status"] == "input_required"
    ((name, question),) = asked["inputRequests"].items()
    assert question["method"] == "elicitation/create"
    assert question["params"]["url"].endswith(f"/approvals/{approval_of(task)}")
    answers = {"inputResponses": {name: {"action": "accept"}}}
    assert isinstance(await about(at_work, "update", task, more=answers), Answered)
    assert (await told(at_work, task))["status"] == "working", "asked once"
    await at_work.approve(approval_of(task))
    assert (await ended(at_work, task))["result"] == {"page": 7}


async def test_a_client_that_opens_pages_and_takes_no_tasks_is_given_none(
    at_work: Policing,
) -> None:
    assert isinstance(await at_work.ask(capabilities=PAGES), Asked)
    assert isinstance(await at_work.ask(capabilities=PAGES, extra=LEGACY["extra"]), Asked)


async def test_what_is_too_large_to_be_kept_beside_its_arguments_is_no_task(
    at_work: Policing,
) -> None:
    extra = json.dumps({"_meta": {"x": "y" * 20_000}})
    assert await required(at_work, **MODERN, extra=extra)


# -- a server that makes a task of it -------------------------------------------------------------


@either_era
async def test_where_the_server_begins_a_task_the_waiting_one_becomes_it(
    begin: Any, form: dict[str, Any]
) -> None:
    own = {"taskId": "theirs", "status": "working"}
    flat = {"resultType": "task", **own}
    async with begin() as made:
        made.answer = Begun(json.dumps(flat if form is MODERN else {"task": own}).encode())
        task = await begun(made, **form)
        await made.approve(approval_of(task))
        await until_told(lambda: _reached(made, 1), "the call")
        made.answer = Answered(b'{"from":"the server"}')

        async def passed_on() -> bool:
            ending = await about(made, "get", task, **form)
            return ending.body == b'{"from":"the server"}'

        await until_told(passed_on, "the server's task")
        last = made.reached[-1]
        assert (last.method, json.loads(last.arguments)) == ("tasks/get", {"taskId": "theirs"})


async def test_a_call_whose_answer_never_comes_is_told_as_unknown(begin: Any) -> None:
    async with begin() as made:
        made.before_answer = asyncio.Event()
        task = await begun(made, **MODERN, seconds=2)
        await made.approve(approval_of(task))
        await until_told(lambda: _reached(made, 1), "the call")
        found = await ended(made, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "outcome_unknown")
        assert len(made.reached) == 1
        made.before_answer.set()
