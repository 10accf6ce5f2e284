"""Tasks and their updates in the form of a protocol version."""

from toolbus_common.a2a.protocol import CURRENT, Json, Part, Protocol
from toolbus_ingress.a2a.tasks import Status, Task

RESULT = "result"  # the id of a task's only artifact


def task_of(
    task: Task, protocol: Protocol, *, artifacts: bool = True, history: int | None = None
) -> Json:
    """Return a task. `history` is the number of messages to show; None shows none."""
    made: Json = {
        "id": task.id,
        "contextId": task.context,
        "status": _status(task.status, task, protocol),
    }
    if task.parts and artifacts:
        made["artifacts"] = [_artifact(task, protocol)]
    if history is not None:
        parts = _parts(task.message, protocol)
        message = protocol.message(f"{task.id}-message", parts, task.id, task.context)
        made["history"] = [message][:history]
    return made if protocol is CURRENT else {"kind": "task", **made}


def sent(task: Task, protocol: Protocol, history: int | None = None) -> Json:
    """Return the result of a message, or the first event of a stream."""
    made = task_of(task, protocol, history=history)
    return {"task": made} if protocol is CURRENT else made


def artifact_update(task: Task, protocol: Protocol) -> Json:
    """Return the event with a task's artifact."""
    about = {"taskId": task.id, "contextId": task.context}
    made = {**about, "artifact": _artifact(task, protocol), "append": False, "lastChunk": True}
    return {"artifactUpdate": made} if protocol is CURRENT else {"kind": "artifact-update", **made}


def status_update(task: Task, status: Status, protocol: Protocol) -> Json:
    """Return the event with a status of a task."""
    made: Json = {
        "taskId": task.id, "contextId": task.context, "status": _status(status, task, protocol),
    }  # fmt: skip
    if protocol is CURRENT:
        return {"statusUpdate": made}
    return {"kind": "status-update", **made, "final": status.ended}


def _artifact(task: Task, protocol: Protocol) -> Json:
    return {"artifactId": RESULT, "name": RESULT, "parts": _parts(task.parts, protocol)}


def _status(status: Status, task: Task, protocol: Protocol) -> Json:
    made: Json = {"state": protocol.state(status.state), "timestamp": status.timestamp}
    if status.words:
        about = {"taskId": task.id, "contextId": task.context}
        made["message"] = (
            protocol.reply(f"{task.id}-{status.state}", _parts(status.words, protocol)) | about
        )
    return made


def _parts(parts: tuple[Part, ...], protocol: Protocol) -> list[Json]:
    return [protocol.part(each) for each in parts]
