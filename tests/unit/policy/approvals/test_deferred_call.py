"""A deferred call and its next step, without I/O."""

import json

import pytest
from msgspec.structs import replace

from harness.builders.approvals import pending_approval
from harness.builders.calls import requested_call
from toolbus_common.contracts import (
    DEFERRED,
    CallError,
    CallRequested,
    CallResult,
    InputRequired,
    ProtocolFamily,
)
from toolbus_common.errors import (
    ApprovalRequiredError,
    OutcomeUnknownError,
    UpstreamInvalidError,
)
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_policy.approvals import model as approvals
from toolbus_policy.approvals.model import Approval
from toolbus_policy.approvals.tasks import model as tasks
from toolbus_policy.approvals.tasks.model import (
    MAX_RESULT_BYTES,
    RETENTION_SECONDS,
    DeferredCall,
    Stage,
    Step,
    end_error,
    is_deferred_task_request,
    next_step,
    wants_task,
)

TAKES = '{"extensions":{"io.modelcontextprotocol/tasks":{}},"sampling":{}}'
NOW = 150.0


def call(**given: object) -> CallRequested:
    own = {
        "call_id": "c1", "tool": "burn", "key_digest": "canary-proof", "deadline": 120.0,
        "capabilities": TAKES, "arguments": b'{"page":7}',
    }  # fmt: skip
    return requested_call(**{**own, **given})


def waiting(approval: Approval) -> DeferredCall:
    return tasks.new_deferred_call(call(), approval, "http://page", 100.0, opens_pages=False)


@pytest.mark.parametrize(
    ("given", "wants"),
    [
        ({}, True),
        ({"capabilities": "{}"}, False),
        ({"capabilities": '{"extensions":[]}'}, False),
        ({"capabilities": "{}", "extra": '{"task":{}}'}, False),
        ({"family": ProtocolFamily.LEGACY, "extra": '{"task":{}}'}, True),
        ({"family": ProtocolFamily.LEGACY}, False),
        ({"family": ProtocolFamily.LEGACY, "extra": '{"_meta":{"task":{}}}'}, False),
        ({"method": "prompts/get"}, False),
        ({"server": BUILT_IN}, False),
        ({"extra": json.dumps({"_meta": "x" * 20_000})}, False),
    ],
)
def test_a_call_becomes_a_task_only_for_a_caller_that_supports_tasks(
    given: dict[str, object],
    wants: bool,  # noqa: FBT001
) -> None:
    assert wants_task(call(**given)) is wants


def test_the_next_step_follows_from_the_approval() -> None:
    approval = pending_approval(call())
    task = waiting(approval)
    granted = approvals.granted(approval, "boss", "", 300.0)
    assert next_step(task, approval, NOW) is Step.NOTHING
    assert next_step(task, granted, NOW) is Step.RUN
    over = (
        None,
        replace(granted, id="another"),
        approvals.rejected(approval, "boss", "No.", 200.0),
        approvals.used(granted, 300.0, "c2"),
        approvals.expired(approval),
        approvals.withdrawn(approval),
    )
    for ended in over:
        assert next_step(task, ended, NOW) is Step.END
    assert next_step(task, approval, 200.0) is Step.END, "no decision in time"
    assert next_step(task, granted, 300.0) is Step.END, "the call was not made in time"


def test_a_running_call_is_not_taken_over_before_its_deadline() -> None:
    approval = approvals.used(
        approvals.granted(pending_approval(call()), "boss", "", 300.0), 300.0, "c2"
    )
    task = tasks.running(waiting(approval), "c2", NOW, 5.0)
    assert task.seconds == 20.0
    assert next_step(task, approval, NOW + 24.0) is Step.NOTHING
    assert next_step(task, approval, NOW + 25.0) is Step.END
    assert isinstance(end_error(task, approval), OutcomeUnknownError)


def test_a_call_that_was_not_dispatched_is_retried_later() -> None:
    granted = approvals.granted(pending_approval(call()), "boss", "", 300.0)
    before = waiting(granted)
    task = tasks.postponed(tasks.running(before, "c2", NOW, 5.0), before, "No executor responds.")
    assert next_step(task, granted, NOW) is Step.NOTHING
    assert next_step(task, granted, NOW + 1.0) is Step.RUN
    error = end_error(task, None)
    assert isinstance(error, ApprovalRequiredError)
    assert "No executor responds." in error.reason


def test_an_ended_task_is_readable_for_an_hour() -> None:
    approval = pending_approval(call())
    task = tasks.ended(waiting(approval), CallResult(b'{"content":[]}'), NOW)
    assert (task.stage, task.call) == (Stage.ENDED, "")
    assert next_step(task, None, NOW + RETENTION_SECONDS - 1) is Step.NOTHING
    assert next_step(task, None, NOW + RETENTION_SECONDS) is Step.FORGET


def test_a_result_that_a_task_cannot_store_is_an_error() -> None:
    task = waiting(pending_approval(call()))
    for outcome, word in (
        (CallResult(b"x" * MAX_RESULT_BYTES), "exceeds the limit"),
        (InputRequired(b"{}"), "requested input"),
    ):
        reply = tasks.ended(task, outcome, NOW).reply
        assert isinstance(reply, CallError)
        assert isinstance(reply.error, UpstreamInvalidError)
        assert word in reply.error.reason


def test_a_deferred_call_is_made_as_requested_without_its_client() -> None:
    made = tasks.rebuild_request(waiting(pending_approval(call())), b'{"page":7}', "c2", "r2", NOW)
    assert (made.call_id, made.parent_id, made.reply_to, made.key_digest) == ("c2", "c1", "r2", "")
    assert (made.server, made.tool, made.arguments) == ("docs", "burn", b'{"page":7}')
    assert made.deadline == NOW + 20.0
    assert json.loads(made.capabilities) == {"extensions": {"io.modelcontextprotocol/tasks": {}}}


@pytest.mark.parametrize(
    ("method", "arguments", "ours"),
    [
        ("tasks/get", {"taskId": DEFERRED + "a"}, True),
        ("tasks/get", {"taskId": "a"}, False),
        ("tasks/get", {"taskId": 7, "inputResponses": {"x": DEFERRED}}, False),
        ("prompts/get", {"taskId": DEFERRED + "a"}, False),
        ("resources/read", {"uri": DEFERRED}, False),
    ],
)
def test_only_requests_about_a_stored_task_are_answered(
    method: str, arguments: dict[str, object], *, ours: bool
) -> None:
    raw = json.dumps(arguments).encode()
    assert is_deferred_task_request(call(method=method, arguments=raw)) is ours


def test_a_malformed_request_names_no_task() -> None:
    assert not is_deferred_task_request(
        call(method="tasks/get", arguments=b'["toolbus.deferred."]')
    )
