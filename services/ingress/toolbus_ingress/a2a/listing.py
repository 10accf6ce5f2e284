"""Lists of the tasks of a caller (`ListTasks` of A2A 1.0, section 3.1.4)."""

from datetime import datetime
from typing import Any

from toolbus_common.a2a.protocol import Json, Protocol, plain_state
from toolbus_common.errors import InvalidError
from toolbus_ingress.a2a import forms
from toolbus_ingress.a2a.tasks import Task

DEFAULT_SIZE, LARGEST_SIZE = 50, 100
_STATES = frozenset(
    {"submitted", "working", "completed", "failed", "canceled", "rejected", "input-required",
     "auth-required"}
)  # fmt: skip


def listed(tasks: list[Task], params: Json, protocol: Protocol) -> Json:
    """Return a page of tasks, the latest status first. Raises `InvalidError`."""
    size = params.get("pageSize", DEFAULT_SIZE)
    if type(size) is not int or not 1 <= size <= LARGEST_SIZE:
        raise InvalidError(f"pageSize must be a number from 1 to {LARGEST_SIZE}.")
    history = history_length(params)
    found = sorted(_chosen(tasks, params), key=lambda each: each.status.at, reverse=True)
    start, token = 0, params.get("pageToken")
    if token:
        ids = [each.id for each in found]
        if token not in ids:
            raise InvalidError("Unknown pageToken. List from the beginning.")
        start = ids.index(token)
    page, rest = found[start : start + size], found[start + size :]
    artifacts = params.get("includeArtifacts") is True
    return {
        "tasks": [
            forms.task_of(each, protocol, artifacts=artifacts, history=history) for each in page
        ],
        "nextPageToken": rest[0].id if rest else "",
        "pageSize": len(page),
        "totalSize": len(found),
    }


def history_length(params: Json) -> int | None:
    """Return the number of messages that a client requests; None if it requests no number.

    Raises:
        InvalidError: the value is not a number, or is negative.

    """
    length = params.get("historyLength")
    if length is None:
        return None
    if type(length) is not int or length < 0:
        raise InvalidError("historyLength must be a number, and not below 0.")
    return length


def _chosen(tasks: list[Task], params: Json) -> list[Task]:
    context, status = params.get("contextId"), params.get("status")
    state = plain_state(status) if isinstance(status, str) else status
    if state and state not in _STATES:
        raise InvalidError("status must be a state of a task, such as TASK_STATE_COMPLETED.")
    since = _seconds(params.get("statusTimestampAfter"))
    return [
        each
        for each in tasks
        if (not context or each.context == context)
        and (not state or each.status.state == state)
        and each.status.at >= since
    ]


def _seconds(timestamp: Any) -> float:
    if not timestamp:
        return 0.0
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidError(
            "statusTimestampAfter must be a time, such as 2026-11-25T01:00:00Z."
        ) from (error)
