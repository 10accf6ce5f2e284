"""Present a deferred call as an MCP task of its caller's protocol family (no I/O)."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.contracts import CallError, CallResult, ProtocolFamily, TaskCreated
from toolbus_common.errors import CallCancelledError, ToolbusError, UpstreamRefusedError
from toolbus_policy.approvals.elicitation import REQUEST_NAME, url_elicitation
from toolbus_policy.approvals.tasks.model import DeferredCall, Stage

POLL_MS = 2000
_encode = msgspec.json.Encoder().encode
_NAMES = {
    ProtocolFamily.LEGACY: ("ttl", "pollInterval"),
    ProtocolFamily.MODERN: ("ttlMs", "pollIntervalMs"),
}
ACKNOWLEDGED = b'{"resultType":"complete"}'  # the reply to a request that returns no data


class _ToolResult(msgspec.Struct):
    """The part of a tool result that reports an error."""

    isError: bool | None = None  # noqa: N815 - the name on the wire


def created_reply(waiting: DeferredCall) -> TaskCreated:
    """Return the reply to the call itself."""
    task = _task(waiting)
    if waiting.family is ProtocolFamily.LEGACY:
        return TaskCreated(_encode({"task": task}))
    return TaskCreated(_encode({"resultType": "task", **task}))


def task_reply(task: DeferredCall) -> CallResult:
    """Return the reply to a request for the task's state."""
    if task.family is ProtocolFamily.LEGACY:
        return CallResult(_encode(_task(task)))
    return CallResult(_encode({"resultType": "complete", **_task(task), **_outcome(task)}))


def _task(task: DeferredCall) -> dict[str, Any]:
    ttl, poll = _NAMES[task.family]
    return {
        "taskId": task.name,
        "status": _status(task),
        "statusMessage": _status_message(task),
        "createdAt": _time(task.requested_at),
        "lastUpdatedAt": _time(task.changed_at),
        ttl: int((task.kept_until - task.requested_at) * 1000),
        poll: POLL_MS,
    }


def _status(task: DeferredCall) -> str:
    if task.stage is not Stage.ENDED:
        return "input_required" if _needs_input(task) else "working"
    reply = task.reply
    if isinstance(reply, CallError):
        return "cancelled" if isinstance(reply.error, CallCancelledError) else "failed"
    # In the session-based family, a task has failed if its tool reports an error.
    legacy = task.family is ProtocolFamily.LEGACY
    reported = legacy and msgspec.json.decode(reply.body, type=_ToolResult).isError
    return "failed" if reported else "completed"


def _needs_input(task: DeferredCall) -> bool:
    return task.opens_pages and task.stage is Stage.WAITING


def _status_message(task: DeferredCall) -> str:
    name = full_name(task.server, task.tool)
    if task.stage is Stage.WAITING:
        return (
            f"This call of {name} waits for approval, at {task.page} or with 'toolbus "
            f"approve {task.id}'. It is made once approved; do not repeat it."
        )
    if task.stage is Stage.RUNNING:
        return f"This call of {name} was approved and is running."
    reply = task.reply
    if isinstance(reply, CallError):
        return reply.error.reason
    return f"This call of {name} was approved and has completed."


def _outcome(task: DeferredCall) -> dict[str, Any]:
    """Return the pending request or the final result, as a member of a stateless task."""
    if _needs_input(task):
        return {"inputRequests": {REQUEST_NAME: url_elicitation(task.server, task.tool, task.page)}}
    if task.stage is not Stage.ENDED:
        return {}
    reply = task.reply
    if isinstance(reply, CallError):
        cancelled = isinstance(reply.error, CallCancelledError)
        return {} if cancelled else {"error": _error(reply.error)}
    return {"result": msgspec.Raw(reply.body)}


def _error(error: ToolbusError) -> dict[str, Any]:
    """Return an error; ingress converts a code of Toolbus to the protocol's code."""
    if isinstance(error, UpstreamRefusedError):
        found = {"code": error.data["upstream_code"], "message": error.reason}
        more = {"data": error.data["upstream_data"]} if "upstream_data" in error.data else {}
        return found | more
    return {"code": error.code, "message": error.reason, "data": error.data}


def _time(at: float) -> str:
    written = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return written.replace("+00:00", "Z")
