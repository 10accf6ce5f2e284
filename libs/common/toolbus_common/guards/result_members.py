"""The members of a server's result that guards do not check (no I/O).

Only the server reads them, or they identify a state: a change would break the call.
"""

from typing import Any

from toolbus_common.guards.content import Content

_OPAQUE = ("requestState", "taskId")
_TYPES = ("complete", "input_required", "task")


def parted(result: Content) -> tuple[Any, dict[str, Any]]:
    """Return a result without its opaque members, and the opaque members by name."""
    try:
        value = result.value
    except ValueError:
        return None, {}
    if not isinstance(value, dict):
        return value, {}
    members = dict(value)
    opaque = {name: members.pop(name) for name in _OPAQUE if name in members}
    if members.get("resultType") in _TYPES:
        opaque["resultType"] = members.pop("resultType")
    if isinstance(task := members.get("task"), dict) and "taskId" in task:
        opaque["task"] = {"taskId": task["taskId"]}
        members["task"] = {name: each for name, each in task.items() if name != "taskId"}
    return members, opaque


def joined(members: dict[str, Any], opaque: dict[str, Any]) -> dict[str, Any]:
    """Return a result with its opaque members."""
    whole = {**opaque, **members}
    if "task" in opaque and isinstance(members.get("task"), dict):
        whole["task"] = {**opaque["task"], **members["task"]}
    return whole
