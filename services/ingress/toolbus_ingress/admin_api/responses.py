"""How the administration answers: whatever failed, with code, reason and fix. Pure."""

from typing import Any

import msgspec

from toolbus_common.access.oauth_scopes import LOOK
from toolbus_common.contracts import AdminReply
from toolbus_common.errors import (
    InsufficientScopeError,
    InvalidError,
    ToolbusError,
    UnauthorizedError,
)
from toolbus_ingress.admin_api.request import JSON, YAML, Matched, UnknownFormError
from toolbus_ingress.auth.dpop import rejection
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import RefusedRequestError

_NO_STORE = (b"cache-control", b"no-store")
_FIXES = {
    "unauthorized": "Send a live admin key as Authorization: Bearer ('toolbus admins create' makes "
    "one), or sign in ('toolbus admins login').",
    "insufficient_scope": "Sign in again for the scope that the reason names.",
    "forbidden": "Ask somebody whose role goes so far, or change what is sent.",
    "unknown_entry": "List what there is, and take a name from there.",
    "unknown_approval": "List the approvals that wait.",
    "conflict": "Look at what is there now, and decide again.",
    "stale": "Get it again, and send If-Match with the revision it has now.",
    "unconditional": "Send If-Match with the revision that is to be replaced, or *.",
    "invalid": "Change what is sent as the reason says; /api/openapi.json describes it.",
    "faulty": "Fix each error, and send it again; nothing was changed.",
}
_RETRY = "Wait a moment, and send it again."
_AS_TOLD = "Do as the reason says."


def succeeded(found: Matched, told: AdminReply) -> Response:
    """What policy answered."""
    operation = found.operation
    headers: tuple[tuple[bytes, bytes], ...] = (_NO_STORE,)
    if told.revision:
        headers += ((b"etag", b'"%d"' % told.revision),)
    if operation.answers is None:
        return Response(operation.status, b"", headers)
    written = YAML if told.form == "yaml" else JSON
    headers += ((b"content-type", written.encode()),)
    return Response(201 if told.created else operation.status, told.body, headers)


def failed(error: ToolbusError, where: bytes = b"") -> Response:
    """Why not, and what to do; `where` is what a challenge says of where to sign in."""
    retryable = error.retryable
    fix = _FIXES.get(error.code, _RETRY if retryable else _AS_TOLD)
    told: dict[str, Any] = {"code": error.code, "reason": error.reason, "fix": fix}
    told |= {"retryable": retryable, "faults": error.data.get("faults", [])}
    headers: tuple[tuple[bytes, bytes], ...] = (_NO_STORE,)
    if isinstance(error, UnauthorizedError | InsufficientScopeError):
        headers += ((b"www-authenticate", _challenge(error, where)),)
    if status_of(error) == jsonrpc.UNAVAILABLE:
        headers += ((b"retry-after", b"1"),)
    body = msgspec.json.encode({"error": told})
    return Response(status_of(error), body, headers, rejection(error))


def _challenge(error: ToolbusError, where: bytes) -> bytes:
    told = jsonrpc.lacking(error)
    if where and not told:
        told = f', scope="{LOOK}"'.encode()
    return b'Bearer realm="toolbus administration"' + told + where


def status_of(error: ToolbusError) -> int:
    """The HTTP status of a failure."""
    if isinstance(error, UnknownFormError):
        return 415
    status = jsonrpc.failure(error).status
    if isinstance(error, InvalidError) and status == jsonrpc.OK:
        return jsonrpc.BAD_REQUEST
    return status


def refused(refusal: RefusedRequestError) -> Response:
    """What the guard refused, in the same form."""
    answer = refusal.response
    reason = msgspec.json.decode(answer.body)["error"]["message"]
    told = {"code": str(refusal), "reason": reason, "fix": _AS_TOLD, "retryable": False}
    body = msgspec.json.encode({"error": {**told, "faults": []}})
    return Response(answer.status, body, (*answer.headers, _NO_STORE), answer.rejected)


def not_allowed(methods: tuple[str, ...]) -> Response:
    """Another method than the path has."""
    allowed = ", ".join(methods)
    told = {"code": "method", "reason": f"This path answers {allowed}.", "fix": "Use one of them."}
    body = msgspec.json.encode({"error": {**told, "retryable": False, "faults": []}})
    return Response(405, body, ((b"allow", allowed.encode()), _NO_STORE))


def nothing_here() -> Response:
    """A path nobody serves."""
    told = {
        "code": "unknown_path",
        "reason": "Nothing is served at this path.",
        "fix": "/api/openapi.json describes all paths.",
    }
    body = msgspec.json.encode({"error": {**told, "retryable": False, "faults": []}})
    return Response(404, body, (_NO_STORE,))
