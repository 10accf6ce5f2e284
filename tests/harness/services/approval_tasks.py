"""Requests of an agent about approvals as tasks, through `PolicyReplicas`."""

import json
from typing import Any

from harness.services.policy_replicas import PolicyReplicas
from harness.waits import until_async
from toolbus_common.contracts import DEFERRED, CallResult, FinalReply, ProtocolFamily, TaskCreated

MODERN: dict[str, Any] = {"capabilities": '{"extensions":{"io.modelcontextprotocol/tasks":{}}}'}
BOTH: dict[str, Any] = {
    "capabilities": '{"elicitation":{"url":{}},"extensions":{"io.modelcontextprotocol/tasks":{}}}'
}
LEGACY: dict[str, Any] = {"family": ProtocolFamily.LEGACY, "extra": '{"task":{"ttl":60000}}'}
ENDED = ("completed", "failed", "cancelled")


async def created_task(made: PolicyReplicas, **form: Any) -> str:
    """Make a call, and return the id of the task that it becomes."""
    final = await made.request(**form)
    assert isinstance(final, TaskCreated)
    body = json.loads(final.body)
    task: dict[str, Any] = body.get("task", body)
    assert task["taskId"].startswith(DEFERRED)
    return str(task["taskId"])


async def task_request(made: PolicyReplicas, what: str, task: str, **form: Any) -> FinalReply:
    """Send a `tasks/…` request, and return its reply."""
    given = {
        "family": form.get("family", ProtocolFamily.MODERN),
        **{k: form[k] for k in ("secret",) if k in form},
    }
    arguments = {"taskId": task, **form.get("more", {})}
    seconds = form.get("seconds", 30)
    call = {"method": f"tasks/{what}", "arguments": arguments, "seconds": seconds}
    return await made.request(form.get("tool", "burn"), **call, **given)


async def task_state(made: PolicyReplicas, task: str, **form: Any) -> dict[str, Any]:
    final = await task_request(made, "get", task, **form)
    assert isinstance(final, CallResult)
    found: dict[str, Any] = json.loads(final.body)
    assert found["taskId"] == task
    return found


async def final_state(made: PolicyReplicas, task: str, **form: Any) -> dict[str, Any]:
    async def over() -> dict[str, Any] | None:
        found = await task_state(made, task, **form)
        return found if found["status"] in ENDED else None

    found: dict[str, Any] = await until_async(over, "the end of the task")
    return found


def approval_of(task: str) -> str:
    return task.removeprefix(DEFERRED)


async def reached(made: PolicyReplicas, times: int) -> bool:
    """Return whether the server has received this number of calls."""
    return len(made.reached) >= times
