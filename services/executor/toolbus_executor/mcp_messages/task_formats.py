"""Conversion of tasks between the MCP revisions 2025-11-25 and 2026-07-28.

Only a task of the newer revision contains its outcome.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

GET, UPDATE, RESULT, CANCEL = "tasks/get", "tasks/update", "tasks/result", "tasks/cancel"
ENDED = frozenset({"completed", "failed", "cancelled"})
INPUT_REQUIRED = "input_required"
RELATED = "io.modelcontextprotocol/related-task"
_RELATED = RELATED.encode()
_OLD_NAMES = {"ttlMs": "ttl", "pollIntervalMs": "pollInterval"}
_NEW_NAMES = {old: new for new, old in _OLD_NAMES.items()}
_ONLY_NEW = frozenset({"resultType", "result", "error", "inputRequests", "requestState"})
_NULL = msgspec.Raw(b"null")
_COMPLETE = msgspec.Raw(b'"complete"')

Members = Mapping[str, msgspec.Raw]

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Task(msgspec.Struct):
    """The members of a task that the gateway reads, from both protocol revisions."""

    taskId: str = ""  # noqa: N815 - MCP's member name
    status: str = "working"
    pollInterval: int | float | None = None  # noqa: N815
    pollIntervalMs: int | float | None = None  # noqa: N815
    result: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None
    inputRequests: dict[str, msgspec.Raw] | None = None  # noqa: N815

    @property
    def poll_ms(self) -> float | None:
        """The pause before the next poll in milliseconds; None if the server sets no pause."""
        return self.pollInterval if self.pollIntervalMs is None else self.pollIntervalMs


class _Nested(msgspec.Struct):
    """A result of 2025-11-25 for a call that became a task."""

    task: msgspec.Raw = msgspec.Raw(b"")


class _ToolError(msgspec.Struct):
    """The member of a result that reports a tool's error."""

    isError: bool | None = None  # noqa: N815 - MCP's member name


class _Name(msgspec.Struct):
    """The member that contains the id of a task."""

    taskId: str = ""  # noqa: N815 - MCP's member name


class _Meta(msgspec.Struct):
    """The member of `_meta` that assigns a message to a task."""

    task: _Name = msgspec.field(default_factory=_Name, name=RELATED)


class _RelatedParams(msgspec.Struct):
    """The params of any message that may belong to a task."""

    meta: _Meta = msgspec.field(default_factory=_Meta, name="_meta")


_related_params = msgspec.json.Decoder(_RelatedParams).decode
read = msgspec.json.Decoder(Task).decode
_nested = msgspec.json.Decoder(_Nested).decode
_tool_error = msgspec.json.Decoder(_ToolError).decode


def nested(raw: bytes) -> bytes | None:
    """Return the raw task of a result of 2025-11-25; None if the result contains no task."""
    return bytes(_nested(raw).task) or None


def old(raw: bytes) -> bytes:
    """Return a task of 2026-07-28 in the form of 2025-11-25, without its outcome.

    If the tool reported an error, the task has failed in 2025-11-25 and is completed in 2026-07-28.
    """
    members = {
        _OLD_NAMES.get(name, name): value
        for name, value in _members(raw).items()
        if name not in _ONLY_NEW
    }
    task = read(raw)
    if task.status == "completed" and task.result and _tool_error(task.result).isError:
        members["status"] = msgspec.Raw(b'"failed"')
    return _encode({**members, "ttl": members.get("ttl", _NULL)})


def new(raw: bytes, kind: str = "complete", **more: Any) -> bytes:
    """Return a task of 2025-11-25 in the form of 2026-07-28.

    `kind` is the `resultType` of the returned object. The members in `more` are added.
    """
    members: dict[str, Any] = {
        _NEW_NAMES.get(name, name): value for name, value in _members(raw).items()
    }
    return _encode({**members, "ttlMs": members.get("ttlMs", _NULL), **more, "resultType": kind})


def whole(result: bytes) -> msgspec.Raw:
    """Return the result of a task of 2025-11-25 in the form that tasks of 2026-07-28 contain."""
    return msgspec.Raw(_encode({"resultType": _COMPLETE, **_members(unrelated(result))}))


def related(params: bytes) -> str:
    """Return the id of the task that a server's request belongs to; empty if there is none."""
    if _RELATED not in params:
        return ""
    with suppress(msgspec.DecodeError):
        return _related_params(params).meta.task.taskId
    return ""


def unrelated(params: bytes) -> bytes:
    """Return the params without the member that assigns the message to a task."""
    if _RELATED not in params:
        return params
    members = _members(params)
    meta = _members(members["_meta"]) if "_meta" in members else {}
    if meta.pop(RELATED, None) is None:
        return params
    return _encode({**members, "_meta": meta})
