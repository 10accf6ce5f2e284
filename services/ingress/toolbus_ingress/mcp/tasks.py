"""Tasks as clients hold them: under sealed handles, some of which hold the result themselves.

A client with a session may ask for a task where the server, which decides, answers at once. What it
gets is a task that has ended; its result is sealed into its handle, so that it outlives everything.
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
from toolbus_ingress.sessions.sealed_claims import DoneClaims, Seal, TaskClaims

RESULT, CANCEL = "tasks/result", "tasks/cancel"
RELATED = META + "related-task"
DEFERRED_NAME = DEFERRED.encode()
DONE_SECONDS = 3600.0
LARGEST_DONE = 40 * 1024  # bytes of a result; what is sealed must stay short enough to be opened

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Told(msgspec.Struct):
    """Whether a tool reports an error."""

    isError: bool | None = None  # noqa: N815 - the wire's own name


_told = msgspec.json.Decoder(_Told).decode


class Tasks:
    """Seals tasks into handles, and answers for those that have nothing but their handle."""

    def __init__(self, seal: Seal, catalogue: Catalogue) -> None:
        self._seal = seal
        self._catalogue = catalogue

    def begun(self, body: bytes, call: CallRequested) -> tuple[bytes, str, str]:
        """A task a server began, under a handle; what news call it; and the handle."""
        told = msgspec.json.decode(body)
        task = told["task"] if isinstance(told.get("task"), dict) else told
        own = str(task.get("taskId"))
        handle = self._seal.close(TaskClaims(own, call.server, call.tool, self._owner(call)))
        return renamed(body, handle), task_key(call.server, own), handle

    def done(self, result: bytes, call: CallRequested) -> bytes:
        """A task that has ended, where the server answered at once.

        Raises:
            InvalidError: the result is too large for a handle.

        """
        if len(result) > LARGEST_DONE:
            raise InvalidError(
                f"The tool has run and answered at once with {len(result)} bytes, more than a "
                f"task's handle can hold ({LARGEST_DONE}); call it without 'task'."
            )
        claims = DoneClaims(result, call.server, call.tool, self._owner(call), time())
        return msgspec.json.encode({"task": _task(claims, self._seal.close(claims))})

    def holds(self, handle: str, caller: Caller) -> bool:
        """Whether a server's task is this caller's, who may still use its tool."""
        claims = self._seal.open(handle, TaskClaims)
        return claims is not None and self._is_for(claims, caller)

    def kept(self, request: Request, caller: Caller) -> bytes | None:
        """The answer about a task whose result is in its handle; None for any other task.

        Raises:
            InvalidError: it expired, is not this key's, or cannot be cancelled any more.

        """
        handle = request.params.get("taskId")
        claims = (
            self._seal.open(handle, DoneClaims) if request.family is ProtocolFamily.LEGACY else None
        )
        if claims is None:
            return None
        if claims.at + DONE_SECONDS < time() or not self._is_for(claims, caller):
            raise unknown()
        if request.method == RESULT:
            return related(claims.result, str(handle))
        if request.method == CANCEL:
            raise InvalidError("The task has ended already; there is nothing to cancel.")
        return msgspec.json.encode(_task(claims, str(handle)))

    def _owner(self, call: CallRequested) -> str:
        return self._catalogue.holder_of_token(call.key_digest) or call.key_digest

    def _is_for(self, claims: DoneClaims | TaskClaims, caller: Caller) -> bool:
        return (
            claims.principal_id == caller.principal_id
            and caller.server in ("", claims.server)
            and self._catalogue.serves(claims.server)
            and self._catalogue.sees(caller.bounds, claims.server, claims.tool)
        )


def wants_task(request: Request) -> bool:
    """Return whether a client wants its call as a task; for stateless ones the server decides.

    Raises:
        InvalidError: it says so in a way that is none.

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
    """What a server's task is called where its news are told apart."""
    return f"{server}/{task}"


def unknown() -> InvalidError:
    """The refusal of a handle that opens nothing for this key."""
    return InvalidError("Unknown task: it is not one of this key's.")


def renamed(body: bytes, handle: str) -> bytes:
    """A task under the name its caller knows, wherever this revision puts it."""
    members = _members(body)
    raw = msgspec.Raw(strict_json.dump(handle))
    if "taskId" in members:
        members["taskId"] = raw
    if "task" in members:
        task = _members(members["task"])
        task["taskId"] = raw
        members["task"] = msgspec.Raw(msgspec.json.encode(task))
    return msgspec.json.encode(members)


def with_codes(body: bytes) -> bytes:
    """A task of policy's, whose error, if it has one, bears the protocol's code."""
    members = _members(body)
    error = msgspec.json.decode(members["error"]) if "error" in members else {}
    if not isinstance(error.get("code"), str):
        return body
    failed = ToolbusError.from_data({**error, "reason": error["message"]})
    told = msgspec.Raw(msgspec.json.encode(jsonrpc.told_within(failed)))
    return msgspec.json.encode({**members, "error": told})


def related(body: bytes, handle: str) -> bytes:
    """A result or the params of a question, tied to the task it belongs to (MCP 2025-11-25)."""
    members: dict[str, Any] = dict(_members(body))
    meta = _members(members["_meta"]) if "_meta" in members else {}
    members["_meta"] = {**meta, RELATED: {"taskId": handle}}
    return msgspec.json.encode(members)


def _task(claims: DoneClaims, handle: str) -> dict[str, Any]:
    at = datetime.fromtimestamp(claims.at, UTC).isoformat(timespec="milliseconds")
    return {
        "taskId": handle,
        "status": "failed" if _told(claims.result).isError else "completed",
        "createdAt": at.replace("+00:00", "Z"),
        "lastUpdatedAt": at.replace("+00:00", "Z"),
        "ttl": int(DONE_SECONDS * 1000),
    }
