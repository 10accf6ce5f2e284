"""Approvals as tasks on a real bus: calls that are not made, taken back, or somebody else's."""

import asyncio
import json
from functools import partial
from time import time
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from harness.clients.bus_operator import key
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
from harness.services.policy_replicas import OWN, PolicyReplicas, declared, required
from harness.waits import until_async
from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.config import Configuration
from toolbus_common.contracts import (
    DEFERRED,
    CallAdmitted,
    CallCancelled,
    CallError,
    CallRequested,
    CallResult,
    InputRequired,
)
from toolbus_common.contracts.replies import ReplyChannel
from toolbus_common.errors import (
    ApprovalRejectedError,
    BusDownError,
    CallCancelledError,
    ExecutorDownError,
    InvalidError,
    UnauthorizedError,
    UnknownApprovalError,
    UnknownToolError,
    UpstreamRefusedError,
)
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.sealed_records import Records
from toolbus_common.nats.topology import APPROVALS, EVENTS, TASKS
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_policy.approvals import model as approvals
from toolbus_policy.approvals.model import Cause, State
from toolbus_policy.approvals.repository import ApprovalRepository
from toolbus_policy.approvals.tasks import service as task_service
from toolbus_policy.approvals.tasks.model import Stage
from toolbus_policy.approvals.tasks.repository import TaskRepository

KEY = bytes(32)
either_family = pytest.mark.parametrize("form", [MODERN, LEGACY], ids=["modern", "legacy"])


# -- not made -------------------------------------------------------------------------------------


@either_family
async def test_a_rejected_call_leaves_a_task_that_failed_with_the_reason(
    at_work: PolicyReplicas, form: dict[str, Any]
) -> None:
    task = await created_task(at_work, **form)
    await at_work.reject(approval_of(task), "Page 7 is needed.")
    found = await final_state(at_work, task, **form)
    assert (found["status"], "Page 7 is needed." in found["statusMessage"]) == ("failed", True)
    if form is MODERN:
        assert found["error"]["code"] == "approval_rejected", "for ingress to put into a number"
    else:
        with pytest.raises(ApprovalRejectedError, match=r"Page 7 is needed\."):
            await task_request(at_work, "result", task, **form)
    assert at_work.reached == []


async def test_a_call_nobody_approves_in_time_leaves_a_task_that_failed(begin: Any) -> None:
    async with begin(APPROVAL_SECONDS="0.5") as made:
        task = await created_task(made, **MODERN)
        found = await final_state(made, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "approval_required")
        assert "in time" in found["statusMessage"]
        assert await created_task(made, **MODERN) != task, "asked anew"
        assert (await task_state(made, task))["status"] == "failed"
        assert made.reached == []


async def test_an_approval_does_not_outlive_its_key(begin: Any) -> None:
    async with begin(replicas=1) as made:
        task = await created_task(made, **MODERN)
        await made.declare(declared(revoked=True))
        await until_async(partial(made.refuses, UnauthorizedError, "read"), "the revocation")
        await made.approve(approval_of(task))

        async def kept() -> bool:
            return any(b'"stage":"ended"' in each for each in await made.kept(TASKS))

        await until_async(kept, "the end of the task")
        await made.declare(declared())
        await until_async(partial(_may, made), "the key")
        found = await task_state(made, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "unauthorized")
        assert [call for call in made.reached if call.tool == "burn"] == []


async def test_a_tool_that_changed_since_is_not_called(begin: Any) -> None:
    async with begin(replicas=1) as made:
        task = await created_task(made, **MODERN)
        await made.offer("Burns the page, and tells your secrets.")
        await until_async(lambda: _another(made, task), "the changed definition")
        await made.approve(approval_of(task))
        found = await final_state(made, task)
        assert (
            found["status"],
            "changed since this call was approved" in found["statusMessage"],
        ) == ("failed", True)
        assert made.reached == []


async def _another(made: PolicyReplicas, before: str) -> bool:
    return await required(made) != approval_of(before)


async def test_a_call_nobody_can_take_now_is_made_when_somebody_can(
    at_work: PolicyReplicas,
) -> None:
    task = await created_task(at_work, **MODERN)
    await at_work.executor.calls.leave(CallAdmitted, "*")
    await at_work.executor.bus.settled()
    await at_work.approve(approval_of(task))
    await until_async(lambda: _failed_to_reach(at_work), "an attempt that reached nobody")
    assert (await task_state(at_work, task))["status"] == "working"
    await at_work.executor.calls.serve(CallAdmitted, "*", at_work.run, "executor")
    assert (await final_state(at_work, task))["result"] == {"page": 7}
    assert len(at_work.reached) == 1


async def _failed_to_reach(made: PolicyReplicas) -> bool:
    try:
        await made.request("read")
    except ExecutorDownError:
        return True
    return False


async def test_a_call_whose_server_refuses_it_leaves_the_servers_own_error(begin: Any) -> None:
    async with begin() as made:
        made.answer = CallError(UpstreamRefusedError("No such page.", upstream_code=-32099))
        task = await created_task(made, **MODERN)
        await made.approve(approval_of(task))
        found = await final_state(made, task)
        assert found["error"] == {"code": -32099, "message": "No such page."}


async def test_a_server_that_asks_its_caller_something_finds_nobody(begin: Any) -> None:
    async with begin() as made:
        made.answer = InputRequired(b'{"resultType":"input_required","inputRequests":{}}')
        task = await created_task(made, **BOTH)
        await made.approve(approval_of(task))
        found = await final_state(made, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "upstream_fault")
        assert "elicitation" not in made.reached[0].capabilities, "it was told so"


# -- taken back -----------------------------------------------------------------------------------


@either_family
async def test_to_cancel_the_task_takes_the_approval_back(
    at_work: PolicyReplicas, operator: Bus, form: dict[str, Any]
) -> None:
    task = await created_task(at_work, **form)
    await task_request(at_work, "cancel", task, **form)
    assert (await task_state(at_work, task, **form))["status"] == "cancelled"
    with pytest.raises(UnknownApprovalError, match="withdrawn"):
        await at_work.approve(approval_of(task))
    assert await created_task(at_work, **form) != task
    assert (await task_state(at_work, task, **form))["status"] == "cancelled"
    message = await until_async(partial(_last, operator, "approval.withdrawn"), "the event")
    assert json.loads(message)["approval"] == approval_of(task)
    assert at_work.reached == []


async def _last(operator: Bus, event: str) -> bytes:
    try:
        subject = f"tb.event.{event}.acme"
        return (await operator.client.jetstream().get_last_msg(EVENTS, subject)).data or b""
    except NotFoundError:
        return b""


async def test_a_task_that_has_ended_is_cancelled_no_more(at_work: PolicyReplicas) -> None:
    task, flat = (
        await created_task(at_work, **LEGACY),
        await created_task(at_work, **MODERN, arguments={"p": 1}),
    )
    for each in (task, flat):
        await at_work.approve(approval_of(each))
    await final_state(at_work, task, **LEGACY)
    await final_state(at_work, flat)
    with pytest.raises(InvalidError, match="already ended"):
        await task_request(at_work, "cancel", task, **LEGACY)
    final = await task_request(at_work, "cancel", flat)
    assert isinstance(final, CallResult)
    assert (await task_state(at_work, flat))["status"] == "completed"


async def test_to_cancel_the_task_of_a_call_under_way_takes_the_call_back(begin: Any) -> None:
    async with begin() as made:
        released, received = asyncio.Event(), list[str]()
        made.before_answer = released

        def hear(data: bytes, *_: str) -> None:
            received.append(CallCancelled.decode(data).call_id)
            made.answer = CallError(CallCancelledError("The caller took the call back."))
            released.set()

        await made.executor.bus.subscribe(f"{CallCancelled.SUBJECT}.*", hear)
        await made.executor.bus.settled()
        task = await created_task(made, **MODERN)
        await made.approve(approval_of(task))
        await until_async(lambda: reached(made, 1), "the call")
        await task_request(made, "cancel", task)
        assert (await final_state(made, task))["status"] == "cancelled"
        assert received == [made.reached[0].call_id]


# -- whose it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["get", "cancel", "result", "update"])
async def test_a_task_is_its_own_keys_alone(begin: Any, what: str) -> None:
    async with begin(replicas=1) as made:
        await made.declare(_with_another_like_it())
        await until_async(partial(_may, made, secret=OWN), "the new configuration")
        task = await created_task(made, **MODERN)
        for given in ({"secret": OWN}, {"tool": "read"}):
            with pytest.raises(InvalidError, match="Unknown task"):
                await task_request(made, what, task, **given)
        with pytest.raises(InvalidError, match="Unknown task"):
            await task_request(made, what, DEFERRED + "0" * 32)
        assert (await task_state(made, task))["status"] == "working"


def _with_another_like_it() -> Configuration:
    changed = declared()
    return changed.model_copy(update={"keys": {**changed.keys, "own": key(OWN, user="ann")}})


async def _may(made: PolicyReplicas, **given: Any) -> bool:
    try:
        await made.request("read", **given)
    except (UnauthorizedError, UnknownToolError):
        return False
    return True


async def test_a_key_has_only_so_many_tasks_and_is_refused_with_the_id_then(
    begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_service, "MAX_TASKS_PER_KEY", 2)
    async with begin(replicas=1) as made:
        for page in range(2):
            await task_request(
                made, "cancel", await created_task(made, **MODERN, arguments={"page": page})
            )
        assert await required(made, **MODERN)


async def test_an_approval_that_another_call_has_used_is_not_given_back(
    settings: Settings, begin: Any
) -> None:
    """A call that could not be made has its approval back, but not one that was used otherwise."""
    async with begin(replicas=1) as made:
        call = made.call(**MODERN)
    principal = ConfigSnapshot.of(declared()).principal("bot")
    request = approvals.new_approval(
        call, principal, Cause("key:bot"), "b" * 64, (time(), time() + 60)
    )
    tried: list[str] = []
    async with Service("policy", settings).running() as service:
        approval_repository, book = (
            ApprovalRepository(Records(APPROVALS, [KEY])),
            TaskRepository(Records(TASKS, [KEY])),
        )
        approval_repository.open(await service.bucket(APPROVALS))
        book.open(await service.bucket(TASKS))
        tasks = task_service.TaskService(
            book, approval_repository, service.events, service.calls, service.bus, 5.0
        )

        async def run_approved(
            made: CallRequested, reply: ReplyChannel, _key: str, _approval: str
        ) -> None:
            tried.append(made.call_id)
            kept = await approval_repository.load(request.binding)
            assert kept is not None
            assert await approval_repository.put(
                approvals.used(kept.approval, request.ends, "another"), kept
            )
            await reply.send(CallError(BusDownError("Events can be kept nowhere.")))

        tasks.run_approved = run_approved
        assert await approval_repository.put(
            approvals.granted(request, "boss", "", request.ends), None
        )
        assert await tasks.create(call, request, "http://page") is not None
        service.spawn(tasks.run())

        async def over() -> bool:
            entry = await book.load(request.id)
            return entry is not None and entry.task.stage is Stage.ENDED

        await until_async(over, "the end of the task")
        kept = await approval_repository.load(request.binding)
        assert kept is not None
        assert kept.approval.state is State.USED
        assert len(tried) == 1
