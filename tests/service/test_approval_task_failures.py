"""Approvals as tasks on a real bus: calls that are rejected, cancelled, or of another caller."""

import asyncio
import json
from functools import partial
from time import time
from typing import Any

import pytest

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
from harness.services.policy_replicas import OWN, PolicyReplicas, declared, last_event, required
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
from toolbus_common.contracts.replies import CallContext, Reply
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
from toolbus_common.nats.topology import APPROVALS, TASKS
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


# -- not executed ----------------------------------------------------------------------------------


@either_family
async def test_a_rejected_call_leaves_a_failed_task_with_the_reason(
    policy: PolicyReplicas, form: dict[str, Any]
) -> None:
    task = await created_task(policy, **form)
    await policy.reject(approval_of(task), "Page 7 is needed.")
    found = await final_state(policy, task, **form)
    assert (found["status"], "Page 7 is needed." in found["statusMessage"]) == ("failed", True)
    if form is MODERN:
        assert found["error"]["code"] == "approval_rejected", "ingress translates it into a number"
    else:
        with pytest.raises(ApprovalRejectedError, match=r"Page 7 is needed\."):
            await task_request(policy, "result", task, **form)
    assert policy.reached == []


async def test_a_call_not_approved_in_time_leaves_a_failed_task(start_policy: Any) -> None:
    async with start_policy(APPROVAL_SECONDS="0.5") as policy:
        task = await created_task(policy, **MODERN)
        found = await final_state(policy, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "approval_required")
        assert "in time" in found["statusMessage"]
        assert await created_task(policy, **MODERN) != task, "a new approval"
        assert (await task_state(policy, task))["status"] == "failed"
        assert policy.reached == []


async def test_an_approval_does_not_outlive_its_key(start_policy: Any) -> None:
    async with start_policy(replicas=1) as policy:
        task = await created_task(policy, **MODERN)
        await policy.declare(declared(revoked=True))
        await until_async(partial(policy.refuses, UnauthorizedError, "read"), "the revocation")
        await policy.approve(approval_of(task))

        async def is_stored() -> bool:
            return any(b'"stage":"ended"' in each for each in await policy.kept(TASKS))

        await until_async(is_stored, "the end of the task")
        await policy.declare(declared())
        await until_async(partial(_may, policy), "the key")
        found = await task_state(policy, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "unauthorized")
        assert [call for call in policy.reached if call.tool == "burn"] == []


async def test_a_tool_changed_after_its_approval_is_not_called(start_policy: Any) -> None:
    async with start_policy(replicas=1) as policy:
        task = await created_task(policy, **MODERN)
        await policy.offer("Burns the page, and tells your secrets.")
        await until_async(lambda: _another(policy, task), "the changed definition")
        await policy.approve(approval_of(task))
        found = await final_state(policy, task)
        assert (
            found["status"],
            "changed since this call was approved" in found["statusMessage"],
        ) == ("failed", True)
        assert policy.reached == []


async def _another(policy: PolicyReplicas, before: str) -> bool:
    return await required(policy) != approval_of(before)


async def test_an_approved_call_waits_for_an_executor(policy: PolicyReplicas) -> None:
    task = await created_task(policy, **MODERN)
    await policy.executor.calls.leave(CallAdmitted, "*")
    await policy.executor.bus.settled()
    await policy.approve(approval_of(task))
    await until_async(lambda: _failed_to_reach(policy), "an attempt without an executor")
    assert (await task_state(policy, task))["status"] == "working"
    await policy.executor.calls.serve(CallAdmitted, "*", policy.run, "executor")
    assert (await final_state(policy, task))["result"] == {"page": 7}
    assert len(policy.reached) == 1


async def _failed_to_reach(policy: PolicyReplicas) -> bool:
    try:
        await policy.request("read")
    except ExecutorDownError:
        return True
    return False


async def test_a_call_rejected_by_its_server_leaves_the_servers_error(start_policy: Any) -> None:
    async with start_policy() as policy:
        policy.answer = CallError(UpstreamRefusedError("No such page.", upstream_code=-32099))
        task = await created_task(policy, **MODERN)
        await policy.approve(approval_of(task))
        found = await final_state(policy, task)
        assert found["error"] == {"code": -32099, "message": "No such page."}


async def test_a_server_request_during_a_task_without_a_caller_fails(start_policy: Any) -> None:
    async with start_policy() as policy:
        policy.answer = InputRequired(b'{"resultType":"input_required","inputRequests":{}}')
        task = await created_task(policy, **BOTH)
        await policy.approve(approval_of(task))
        found = await final_state(policy, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "upstream_invalid")
        assert "elicitation" not in policy.reached[0].capabilities, (
            "the call declares no such capability"
        )


# -- cancelled -------------------------------------------------------------------------------------


@either_family
async def test_cancelling_the_task_withdraws_the_approval(
    policy: PolicyReplicas, operator: Bus, form: dict[str, Any]
) -> None:
    task = await created_task(policy, **form)
    await task_request(policy, "cancel", task, **form)
    assert (await task_state(policy, task, **form))["status"] == "cancelled"
    with pytest.raises(UnknownApprovalError, match="withdrawn"):
        await policy.approve(approval_of(task))
    assert await created_task(policy, **form) != task
    assert (await task_state(policy, task, **form))["status"] == "cancelled"
    message = await until_async(partial(last_event, operator, "approval.withdrawn"), "the event")
    assert json.loads(message)["approval"] == approval_of(task)
    assert policy.reached == []


async def test_an_ended_task_cannot_be_cancelled(policy: PolicyReplicas) -> None:
    task, flat = (
        await created_task(policy, **LEGACY),
        await created_task(policy, **MODERN, arguments={"p": 1}),
    )
    for each in (task, flat):
        await policy.approve(approval_of(each))
    await final_state(policy, task, **LEGACY)
    await final_state(policy, flat)
    with pytest.raises(InvalidError, match="already ended"):
        await task_request(policy, "cancel", task, **LEGACY)
    final = await task_request(policy, "cancel", flat)
    assert isinstance(final, CallResult)
    assert (await task_state(policy, flat))["status"] == "completed"


async def test_cancelling_the_task_of_a_running_call_cancels_the_call(start_policy: Any) -> None:
    async with start_policy() as policy:
        released, received = asyncio.Event(), list[str]()
        policy.before_answer = released

        def hear(data: bytes, *_: str) -> None:
            received.append(CallCancelled.decode(data).call_id)
            policy.answer = CallError(CallCancelledError("The caller took the call back."))
            released.set()

        await policy.executor.bus.subscribe(f"{CallCancelled.SUBJECT}.*", hear)
        await policy.executor.bus.settled()
        task = await created_task(policy, **MODERN)
        await policy.approve(approval_of(task))
        await until_async(lambda: reached(policy, 1), "the call")
        await task_request(policy, "cancel", task)
        assert (await final_state(policy, task))["status"] == "cancelled"
        assert received == [policy.reached[0].call_id]


# -- ownership -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["get", "cancel", "result", "update"])
async def test_a_task_is_known_to_its_own_key_only(start_policy: Any, what: str) -> None:
    async with start_policy(replicas=1) as policy:
        await policy.declare(_with_another_like_it())
        await until_async(partial(_may, policy, secret=OWN), "the new configuration")
        task = await created_task(policy, **MODERN)
        for given in ({"secret": OWN}, {"tool": "read"}):
            with pytest.raises(InvalidError, match="Unknown task"):
                await task_request(policy, what, task, **given)
        with pytest.raises(InvalidError, match="Unknown task"):
            await task_request(policy, what, DEFERRED + "0" * 32)
        assert (await task_state(policy, task))["status"] == "working"


def _with_another_like_it() -> Configuration:
    changed = declared()
    return changed.model_copy(update={"keys": {**changed.keys, "own": key(OWN, user="ann")}})


async def _may(policy: PolicyReplicas, **given: Any) -> bool:
    try:
        await policy.request("read", **given)
    except (UnauthorizedError, UnknownToolError):
        return False
    return True


async def test_a_key_has_a_limited_number_of_tasks_and_then_gets_the_approval_id(
    start_policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_service, "MAX_TASKS_PER_KEY", 2)
    async with start_policy(replicas=1) as policy:
        for page in range(2):
            await task_request(
                policy, "cancel", await created_task(policy, **MODERN, arguments={"page": page})
            )
        assert await required(policy, **MODERN)


async def test_an_approval_used_by_another_call_is_not_restored(
    settings: Settings, start_policy: Any
) -> None:
    """Restore the approval of a call that could not run, unless another call has used it."""
    async with start_policy(replicas=1) as policy:
        call = policy.call(**MODERN)
    principal = ConfigSnapshot.of(declared()).principal("bot")
    request = approvals.new_approval(
        call, principal, Cause("key:bot"), "b" * 64, (time(), time() + 60)
    )
    attempts: list[str] = []
    async with Service("policy", settings).running() as service:
        approval_repository, book = (
            ApprovalRepository(Records(APPROVALS, [KEY])),
            TaskRepository(Records(TASKS, [KEY])),
        )
        approval_repository.open(await service.bucket(APPROVALS))
        book.open(await service.bucket(TASKS))
        tasks = task_service.TaskService(
            book, approval_repository, service.events, service.calls, 5.0
        )

        async def run_approved(
            policy: CallRequested, _context: CallContext, _key: str, _approval: str
        ) -> Reply:
            attempts.append(policy.call_id)
            stored = await approval_repository.load(request.binding)
            assert stored is not None
            assert await approval_repository.put(
                approvals.used(stored.approval, request.ends, "another"), stored
            )
            return CallError(BusDownError("Events can be kept nowhere."))

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
        stored = await approval_repository.load(request.binding)
        assert stored is not None
        assert stored.approval.state is State.USED
        assert len(attempts) == 1
