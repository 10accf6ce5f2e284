"""The two forms of a task: as in 2025-11-25, and with its outcome in it as in 2026-07-28."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

GET, UPDATE, RESULT, CANCEL = "tasks/get", "tasks/update", "tasks/result", "tasks/cancel"
ENDED = frozenset({"completed", "failed", "cancelled"})
ASKS = "input_required"
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
    """What the gateway reads of a task, in either form."""

    taskId: str = ""  # noqa: N815 - the wire's own name
    status: str = "working"
    pollInterval: int | float | None = None  # noqa: N815
    pollIntervalMs: int | float | None = None  # noqa: N815
    result: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None
    inputRequests: dict[str, msgspec.Raw] | None = None  # noqa: N815

    @property
    def poll_ms(self) -> float | None:
        """How long to wait before asking again, if the server says."""
        return self.pollInterval if self.pollIntervalMs is None else self.pollIntervalMs


class _Nested(msgspec.Struct):
    """A result that says its call became a task (2025-11-25)."""

    task: msgspec.Raw = msgspec.Raw(b"")


class _Told(msgspec.Struct):
    """Whether a tool reports an error."""

    isError: bool | None = None  # noqa: N815 - the wire's own name


class _Name(msgspec.Struct):
    """What names a task."""

    taskId: str = ""  # noqa: N815 - the wire's own name


class _Meta(msgspec.Struct):
    """The member of `_meta` that ties a message to a task."""

    task: _Name = msgspec.field(default_factory=_Name, name=RELATED)


class _Question(msgspec.Struct):
    """The params of anything that may be tied to a task."""

    meta: _Meta = msgspec.field(default_factory=_Meta, name="_meta")


_question = msgspec.json.Decoder(_Question).decode
read = msgspec.json.Decoder(Task).decode
_nested = msgspec.json.Decoder(_Nested).decode
_told = msgspec.json.Decoder(_Told).decode


def nested(raw: bytes) -> bytes | None:
    """The raw task a result of 2025-11-25 holds; None where it is another result."""
    return bytes(_nested(raw).task) or None


def old(raw: bytes) -> bytes:
    """A task of 2026-07-28 as 2025-11-25 writes it, without its outcome.

    There a tool that reports an error leaves a task that failed; here one that is completed.
    """
    told = {
        _OLD_NAMES.get(name, name): value
        for name, value in _members(raw).items()
        if name not in _ONLY_NEW
    }
    task = read(raw)
    if task.status == "completed" and task.result and _told(task.result).isError:
        told["status"] = msgspec.Raw(b'"failed"')
    return _encode({**told, "ttl": told.get("ttl", _NULL)})


def new(raw: bytes, kind: str = "complete", **more: Any) -> bytes:
    """A task of 2025-11-25 as 2026-07-28 writes it; `more` is what that revision adds."""
    told: dict[str, Any] = {
        _NEW_NAMES.get(name, name): value for name, value in _members(raw).items()
    }
    return _encode({**told, "ttlMs": told.get("ttlMs", _NULL), **more, "resultType": kind})


def whole(result: bytes) -> msgspec.Raw:
    """The result of a task of 2025-11-25 as 2026-07-28 has it inside of the task."""
    return msgspec.Raw(_encode({"resultType": _COMPLETE, **_members(unrelated(result))}))


def related(params: bytes) -> str:
    """The task a server's question names as its own; empty if it names none."""
    if _RELATED not in params:
        return ""
    with suppress(msgspec.DecodeError):
        return _question(params).meta.task.taskId
    return ""


def unrelated(params: bytes) -> bytes:
    """The same without the server's own name for the task it belongs to."""
    if _RELATED not in params:
        return params
    told = _members(params)
    meta = _members(told["_meta"]) if "_meta" in told else {}
    if meta.pop(RELATED, None) is None:
        return params
    return _encode({**told, "_meta": meta})
