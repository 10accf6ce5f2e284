"""Tasks of clients: their ids are sealed handles, some of which contain the result itself.

A client with a session may request a task from a server that decides itself which calls become
tasks and answers immediately. The client then receives a completed task. The result is encrypted
in the task's handle, so that no replica has to store it.
"""

from datetime import UTC, datetime
from time import time
from typing import Any

import msgspec

from toolbus_common import strict_json
from toolbus_common.contracts import DEFERRED, TOOLS_CALL, CallRequested, ProtocolFamily
from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.protocol_versions import META, Request
from toolbus_ingress.sessions.sealed_claims import ClaimSealer, DoneClaims, TaskClaims

RESULT, CANCEL = "tasks/result", "tasks/cancel"
RELATED = META + "related-task"
DEFERRED_NAME = DEFERRED.encode()
DONE_SECONDS = 3600.0
LARGEST_DONE = 40 * 1024  # bytes of a result, so that its sealed handle stays within `LONGEST`

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _ToolResult(msgspec.Struct):
    """The member of a tool result that states whether the tool failed."""

    isError: bool | None = None  # noqa: N815 - the name on the wire


_tool_result = msgspec.json.Decoder(_ToolResult).decode


class Tasks:
    """Sealed handles of tasks, and responses about tasks that exist only in their handle."""

    def __init__(self, sealer: ClaimSealer, catalogue: Catalogue) -> None:
        self._sealer = sealer
        self._catalogue = catalogue

    def created(self, body: bytes, call: CallRequested) -> tuple[bytes, str, str]:
        """Return a new task with a sealed id, the task's key in notifications, and the id."""
        members = msgspec.json.decode(body)
        task = members["task"] if isinstance(members.get("task"), dict) else members
        own_id = str(task.get("taskId"))
        claims = TaskClaims(own_id, call.server, call.tool, self._owner(call))
        handle = self._sealer.close(claims)
        return with_task_id(body, handle), task_key(call.server, own_id), handle

    def completed(self, result: bytes, call: CallRequested) -> bytes:
        """Return a completed task for a call that the server answered immediately.

        Raises:
            InvalidError: the result is too large for a handle.

        """
        if len(result) > LARGEST_DONE:
            raise InvalidError(
                f"The tool was executed, but its result of {len(result)} bytes is too large for "
                f"a task (at most {LARGEST_DONE}). Call the tool without 'task'."
            )
        claims = DoneClaims(result, call.server, call.tool, self._owner(call), time())
        return msgspec.json.encode({"task": _task(claims, self._sealer.close(claims))})

    def holds(self, handle: str, caller: Caller) -> bool:
        """Return whether the caller owns a server's task and may still use its tool."""
        claims = self._sealer.open(handle, TaskClaims)
        return claims is not None and self._is_for(claims, caller)

    def stored_result(self, request: Request, caller: Caller) -> bytes | None:
        """Return the answer about a task whose result is in its handle; None for any other task.

        Raises:
            InvalidError: the task expired, is another caller's, or cannot be cancelled any more.

        """
        handle = request.params.get("taskId")
        if request.family is not ProtocolFamily.LEGACY:
            return None
        claims = self._sealer.open(handle, DoneClaims)
        if claims is None:
            return None
        if claims.at + DONE_SECONDS < time() or not self._is_for(claims, caller):
            raise unknown_task()
        if request.method == RESULT:
            return with_related_task(claims.result, str(handle))
        if request.method == CANCEL:
            raise InvalidError("The task is completed and cannot be cancelled.")
        return msgspec.json.encode(_task(claims, str(handle)))

    def _owner(self, call: CallRequested) -> str:
        return self._catalogue.holder_of_token(call.key_digest) or call.key_digest

    def _is_for(self, claims: DoneClaims | TaskClaims, caller: Caller) -> bool:
        return (
            claims.principal_id == caller.principal_id
            and caller.server in ("", claims.server)
            and self._catalogue.serves(claims.server)
            and self._catalogue.sees(caller.grants, claims.server, claims.tool)
        )


def wants_task(request: Request) -> bool:
    """Return whether a session-based client requests its call as a task.

    Raises:
        InvalidError: `task` is not an object.

    """
    if (
        request.family is ProtocolFamily.MODERN
        or request.method != TOOLS_CALL
        or "task" not in request.params
    ):
        return False
    if not isinstance(request.params["task"], dict):
        raise InvalidError("task must be an object.")
    return True


def task_key(server: str, task: str) -> str:
    """Return the key of a server's task, by which its notifications are matched."""
    return f"{server}/{task}"


def unknown_task() -> InvalidError:
    """Return the error for a handle that is not valid for this caller."""
    return InvalidError("Unknown task: the id is invalid, expired, or belongs to another key.")


def with_task_id(body: bytes, handle: str) -> bytes:
    """Return a task with `handle` as its id, at the position of the protocol revision."""
    members = _members(body)
    raw = msgspec.Raw(strict_json.dump(handle))
    if "taskId" in members:
        members["taskId"] = raw
    if "task" in members:
        task = _members(members["task"])
        task["taskId"] = raw
        members["task"] = msgspec.Raw(msgspec.json.encode(task))
    return msgspec.json.encode(members)


def with_error_codes(body: bytes) -> bytes:
    """Return a task that policy created, with the protocol's error code if the task failed."""
    members = _members(body)
    error = msgspec.json.decode(members["error"]) if "error" in members else {}
    if not isinstance(error.get("code"), str):
        return body
    failed = ToolbusError.from_data({**error, "reason": error["message"]})
    raw_error = msgspec.Raw(msgspec.json.encode(jsonrpc.task_error(failed)))
    return msgspec.json.encode({**members, "error": raw_error})


def with_related_task(body: bytes, handle: str) -> bytes:
    """Return a result or params with a reference to the task (MCP 2025-11-25)."""
    members: dict[str, Any] = dict(_members(body))
    meta = _members(members["_meta"]) if "_meta" in members else {}
    members["_meta"] = {**meta, RELATED: {"taskId": handle}}
    return msgspec.json.encode(members)


def _task(claims: DoneClaims, handle: str) -> dict[str, Any]:
    at = datetime.fromtimestamp(claims.at, UTC).isoformat(timespec="milliseconds")
    return {
        "taskId": handle,
        "status": "failed" if _tool_result(claims.result).isError else "completed",
        "createdAt": at.replace("+00:00", "Z"),
        "lastUpdatedAt": at.replace("+00:00", "Z"),
        "ttl": int(DONE_SECONDS * 1000),
    }
