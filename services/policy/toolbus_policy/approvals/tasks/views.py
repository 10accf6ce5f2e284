"""A deferred call as its owner is told of it: a task in the form of its family. Pure."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.contracts import CallError, CallResult, ProtocolFamily, TaskCreated
from toolbus_common.errors import CallCancelledError, ToolbusError, UpstreamRefusedError
from toolbus_policy.approvals.elicitation import QUESTION, page_question
from toolbus_policy.approvals.tasks.model import Deferred, Stage

POLL_MS = 2000
_encode = msgspec.json.Encoder().encode
_NAMES = {
    ProtocolFamily.LEGACY: ("ttl", "pollInterval"),
    ProtocolFamily.MODERN: ("ttlMs", "pollIntervalMs"),
}
ACKNOWLEDGED = b'{"resultType":"complete"}'  # the answer to what tells nothing


class _Told(msgspec.Struct):
    """Whether a tool reports an error."""

    isError: bool | None = None  # noqa: N815 - the wire's own name


def begun(waiting: Deferred) -> TaskCreated:
    """The answer to the call itself."""
    task = _task(waiting)
    if waiting.family is ProtocolFamily.LEGACY:
        return TaskCreated(_encode({"task": task}))
    return TaskCreated(_encode({"resultType": "task", **task}))


def told(task: Deferred) -> CallResult:
    """The answer to who asks after it."""
    if task.family is ProtocolFamily.LEGACY:
        return CallResult(_encode(_task(task)))
    return CallResult(_encode({"resultType": "complete", **_task(task), **_outcome(task)}))


def _task(task: Deferred) -> dict[str, Any]:
    ttl, poll = _NAMES[task.family]
    return {
        "taskId": task.name,
        "status": _status(task),
        "statusMessage": _sentence(task),
        "createdAt": _time(task.requested_at),
        "lastUpdatedAt": _time(task.changed_at),
        ttl: int((task.kept_until - task.requested_at) * 1000),
        poll: POLL_MS,
    }


def _status(task: Deferred) -> str:
    if task.stage is not Stage.ENDED:
        return "input_required" if _asks(task) else "working"
    frame = task.frame
    if isinstance(frame, CallError):
        return "cancelled" if isinstance(frame.error, CallCancelledError) else "failed"
    legacy = (
        task.family is ProtocolFamily.LEGACY
    )  # there a tool that reports an error leaves a failed task
    reported = legacy and msgspec.json.decode(frame.body, type=_Told).isError
    return "failed" if reported else "completed"


def _asks(task: Deferred) -> bool:
    return task.opens_pages and task.stage is Stage.WAITING


def _sentence(task: Deferred) -> str:
    name = full_name(task.server, task.tool)
    if task.stage is Stage.WAITING:
        return (
            f"{name} waits for a person to approve this call, at {task.page} or with 'toolbus "
            f"approve {task.id}'. It is made once approved; nothing has to be repeated."
        )
    if task.stage is Stage.RUNNING:
        return f"A person approved this call of {name}; it is under way."
    frame = task.frame
    if isinstance(frame, CallError):
        return frame.error.reason
    return f"A person approved this call of {name}; it was made."


def _outcome(task: Deferred) -> dict[str, Any]:
    """What the stateless family has inside of a task."""
    if _asks(task):
        return {"inputRequests": {QUESTION: page_question(task.server, task.tool, task.page)}}
    if task.stage is not Stage.ENDED:
        return {}
    frame = task.frame
    if isinstance(frame, CallError):
        cancelled = isinstance(frame.error, CallCancelledError)
        return {} if cancelled else {"error": _error(frame.error)}
    return {"result": msgspec.Raw(frame.body)}


def _error(error: ToolbusError) -> dict[str, Any]:
    """An error; one of ours under its own code, for which ingress has the protocol's."""
    if isinstance(error, UpstreamRefusedError):
        found = {"code": error.data["upstream_code"], "message": error.reason}
        more = {"data": error.data["upstream_data"]} if "upstream_data" in error.data else {}
        return found | more
    return {"code": error.code, "message": error.reason, "data": error.data}


def _time(at: float) -> str:
    written = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return written.replace("+00:00", "Z")
