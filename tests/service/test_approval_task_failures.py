"""Approvals as tasks on a real bus: calls that are rejected, cancelled, or of another caller."""

import asyncio
import json
from functools import partial
from time import time
from typing import Any

import pytest
from nats.js.errors import NotFoundError

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
from harness.operating import key
from harness.policing import OWN, Policing, declared, required
from harness.waiting import until_told
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


# -- not executed ----------------------------------------------------------------------------------


@either_family
async def test_a_rejected_call_leaves_a_failed_task_with_the_reason(
    at_work: Policing, form: dict[str, Any]
) -> None:
    task = await begun(at_work, **form)
    await at_work.reject(approval_of(task), "Page 7 is needed.")
    found = await ended(at_work, task, **form)
    assert (found["status"], "Page 7 is needed." in found["statusMessage"]) == ("failed", True)
    if form is MODERN:
        assert found["error"]["code"] == "approval_rejected", "ingress translates it into a number"
    else:
        with pytest.raises(ApprovalRejectedError, match=r"Page 7 is needed\."):
            await about(at_work, "result", task, **form)
    assert at_work.reached == []


async def test_a_call_not_approved_in_time_leaves_a_failed_task(begin: Any) -> None:
    async with begin(APPROVAL_SECONDS="0.5") as made:
        task = await begun(made, **MODERN)
        found = await ended(made, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "approval_required")
        assert "in time" in found["statusMessage"]
        assert await begun(made, **MODERN) != task, "a new approval"
        assert (await told(made, task))["status"] == "failed"
        assert made.reached == []


async def test_an_approval_does_not_outlive_its_key(begin: Any) -> None:
    async with begin(replicas=1) as made:
        task = await begun(made, **MODERN)
        await made.declare(declared(revoked=True))
        await until_told(partial(made.refuses, UnauthorizedError, "read"), "the revocation")
        await made.approve(approval_of(task))

        async def kept() -> bool:
            return any(b'"stage":"ended"' in each for each in await made.kept(TASKS))

        await until_told(kept, "the end of the task")
        await made.declare(declared())
        await until_told(partial(_may, made), "the key")
        found = await told(made, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "unauthorized")
        assert [call for call in made.reached if call.tool == "burn"] == []


async def test_a_tool_changed_after_its_approval_is_not_called(begin: Any) -> None:
    async with begin(replicas=1) as made:
        task = await begun(made, **MODERN)
        await made.offer("Burns the page, and tells your secrets.")
        await until_told(lambda: _another(made, task), "the changed definition")
        await made.approve(approval_of(task))
        found = await ended(made, task)
        assert (
            found["status"],
            "changed since this call was approved" in found["statusMessage"],
        ) == ("failed", True)
        assert made.reached == []


async def _another(made: Policing, before: str) -> bool:
    return await required(made) != approval_of(before)


async def test_an_approved_call_waits_for_an_executor(at_work: Policing) -> None:
    task = await begun(at_work, **MODERN)
    await at_work.executor.calls.leave(CallAdmitted, "*")
    await at_work.executor.bus.settled()
    await at_work.approve(approval_of(task))
    await until_told(lambda: _failed_to_reach(at_work), "an attempt without an executor")
    assert (await told(at_work, task))["status"] == "working"
    await at_work.executor.calls.serve(CallAdmitted, "*", at_work.run, "executor")
    assert (await ended(at_work, task))["result"] == {"page": 7}
    assert len(at_work.reached) == 1


async def _failed_to_reach(made: Policing) -> bool:
    try:
        await made.request("read")
    except ExecutorDownError:
        return True
    return False


async def test_a_call_rejected_by_its_server_leaves_the_servers_error(begin: Any) -> None:
    async with begin() as made:
        made.answer = CallError(UpstreamRefusedError("No such page.", upstream_code=-32099))
        task = await begun(made, **MODERN)
        await made.approve(approval_of(task))
        found = await ended(made, task)
        assert found["error"] == {"code": -32099, "message": "No such page."}


async def test_a_server_request_during_a_task_without_a_caller_fails(begin: Any) -> None:
    async with begin() as made:
        made.answer = InputRequired(b'{"resultType":"input_required","inputRequests":{}}')
        task = await begun(made, **BOTH)
        await made.approve(approval_of(task))
        found = await ended(made, task)
        assert (found["status"], found["error"]["code"]) == ("failed", "upstream_fault")
        assert "elicitation" not in made.reached[0].capabilities, (
            "the call declares no such capability"
        )


# -- cancelled -------------------------------------------------------------------------------------


@either_family
async def test_cancelling_the_task_withdraws_the_approval(
    at_work: Policing, operator: Bus, form: dict[str, Any]
) -> None:
    task = await begun(at_work, **form)
    await about(at_work, "cancel", task, **form)
    assert (await told(at_work, task, **form))["status"] == "cancelled"
    with pytest.raises(UnknownApprovalError, match="withdrawn"):
        await at_work.approve(approval_of(task))
    assert await begun(at_work, **form) != task
    assert (await told(at_work, task, **form))["status"] == "cancelled"
    message = await until_told(partial(_last, operator, "approval.withdrawn"), "the event")
    assert json.loads(message)["approval"] == approval_of(task)
    assert at_work.reached == []


async def _last(operator: Bus, event: str) -> bytes:
    try:
        subject = f"tb.event.{event}.acme"
        return (await operator.client.jetstream().get_last_msg(EVENTS, subject)).data or b""
    except NotFoundError:
        return b""


async def test_an_ended_task_cannot_be_cancelled(at_work: Policing) -> None:
    task, flat = await begun(at_work, **LEGACY), await begun(at_work, **MODERN, arguments={"p": 1})
    for each in (task, flat):
        await at_work.approve(approval_of(each))
    await ended(at_work, task, **LEGACY)
    await ended(at_work, flat)
    with pytest.raises(InvalidError, match="already ended"):
        await about(at_work, "cancel", task, **LEGACY)
    final = await about(at_work, "cancel", flat)
    assert isinstance(final, CallResult)
    assert (await told(at_work, flat))["status"] == "completed"


async def test_cancelling_the_task_of_a_running_call_cancels_the_call(begin: Any) -> None:
    async with begin() as made:
        released, received = asyncio.Event(), list[str]()
        made.before_answer = released

        def hear(data: bytes, *_: str) -> None:
            received.append(CallCancelled.decode(data).call_id)
            made.answer = CallError(CallCancelledError("The caller took the call back."))
            released.set()

        await made.executor.bus.subscribe(f"{CallCancelled.SUBJECT}.*", hear)
        await made.executor.bus.settled()
        task = await begun(made, **MODERN)
        await made.approve(approval_of(task))
        await until_told(lambda: reached(made, 1), "the call")
        await about(made, "cancel", task)
        assert (await ended(made, task))["status"] == "cancelled"
        assert received == [made.reached[0].call_id]


# -- ownership -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["get", "cancel", "result", "update"])
async def test_a_task_is_known_to_its_own_key_only(begin: Any, what: str) -> None:
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


def _with_another_like_it() -> Configuration:
    changed = declared()
    return changed.model_copy(update={"keys": {**changed.keys, "own": key(OWN, user="ann")}})


async def _may(made: Policing, **given: Any) -> bool:
    try:
        await made.request("read", **given)
    except (UnauthorizedError, UnknownToolError):
        return False
    return True


async def test_a_key_has_a_limited_number_of_tasks_and_then_gets_the_approval_id(
    begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_service, "MAX_TASKS_PER_KEY", 2)
    async with begin(replicas=1) as made:
        for page in range(2):
            await about(made, "cancel", await begun(made, **MODERN, arguments={"page": page}))
        assert await required(made, **MODERN)


async def test_an_approval_used_by_another_call_is_not_restored(
    settings: Settings, begin: Any
) -> None:
    """Restore the approval of a call that could not run, unless another call has used it."""
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

        await until_told(over, "the end of the task")
        kept = await approval_repository.load(request.binding)
        assert kept is not None
        assert kept.approval.state is State.USED
        assert len(tried) == 1
