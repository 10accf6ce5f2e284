"""Responses of the administration API; errors have a code, a reason and a fix. Pure."""

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
from toolbus_ingress.admin_api.request import JSON, YAML, Matched, UnsupportedBodyError
from toolbus_ingress.auth.dpop import rejection_code
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import RejectedRequestError

_NO_STORE = (b"cache-control", b"no-store")
_FIXES = {
    "unauthorized": "Send a valid admin key as Authorization: Bearer ('toolbus admins create' "
    "creates one), or sign in ('toolbus admins login').",
    "insufficient_scope": "Sign in again with the scope that the reason names.",
    "forbidden": "Ask an administrator with the required role, or change the request.",
    "unknown_entry": "List the existing entries, and use one of their names.",
    "unknown_approval": "List the pending approvals.",
    "conflict": "Read the current entry, then repeat the change if it is still needed.",
    "stale": "Read the entry again, and send If-Match with its current revision.",
    "unconditional": "Send If-Match with the revision to replace, or *.",
    "invalid": "Change the request as the reason says; /api/openapi.json describes it.",
    "invalid_configuration": "Fix every validation error, and send the request again; nothing "
    "was changed.",
}
_RETRY = "Wait a moment, then send the request again."
_SEE_REASON = "Correct the problem that the reason describes."


def success(found: Matched, reply: AdminReply) -> Response:
    """Return policy's reply."""
    operation = found.operation
    headers: tuple[tuple[bytes, bytes], ...] = (_NO_STORE,)
    if reply.revision:
        headers += ((b"etag", b'"%d"' % reply.revision),)
    if operation.answers is None:
        return Response(operation.status, b"", headers)
    content_type = YAML if reply.form == "yaml" else JSON
    headers += ((b"content-type", content_type.encode()),)
    return Response(201 if reply.created else operation.status, reply.body, headers)


def failure(error: ToolbusError, metadata: bytes = b"") -> Response:
    """Return an error; `metadata` are the challenge's parameters about sign-in."""
    retryable = error.retryable
    fix = _FIXES.get(error.code, _RETRY if retryable else _SEE_REASON)
    members: dict[str, Any] = {"code": error.code, "reason": error.reason, "fix": fix}
    members |= {"retryable": retryable, "errors": error.data.get("errors", [])}
    headers: tuple[tuple[bytes, bytes], ...] = (_NO_STORE,)
    if isinstance(error, UnauthorizedError | InsufficientScopeError):
        headers += ((b"www-authenticate", _challenge(error, metadata)),)
    if status_of(error) == jsonrpc.UNAVAILABLE:
        headers += ((b"retry-after", b"1"),)
    body = msgspec.json.encode({"error": members})
    return Response(status_of(error), body, headers, rejection_code(error))


def _challenge(error: ToolbusError, metadata: bytes) -> bytes:
    scope = jsonrpc.scope_challenge(error)
    if metadata and not scope:
        scope = f', scope="{LOOK}"'.encode()
    return b'Bearer realm="toolbus administration"' + scope + metadata


def status_of(error: ToolbusError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, UnsupportedBodyError):
        return 415
    status = jsonrpc.failure(error).status
    if isinstance(error, InvalidError) and status == jsonrpc.OK:
        return jsonrpc.BAD_REQUEST
    return status


def rejection(error: RejectedRequestError) -> Response:
    """Return the guard's rejection in this API's error format."""
    answer = error.response
    reason = msgspec.json.decode(answer.body)["error"]["message"]
    members = {"code": str(error), "reason": reason, "fix": _SEE_REASON, "retryable": False}
    body = msgspec.json.encode({"error": {**members, "errors": []}})
    return Response(answer.status, body, (*answer.headers, _NO_STORE), answer.rejected)


def method_not_allowed(methods: tuple[str, ...]) -> Response:
    """Return 405 with the methods of the path."""
    allowed = ", ".join(methods)
    members = {
        "code": "method",
        "reason": f"Method not allowed. Use {allowed}.",
        "fix": "Use one of these methods.",
    }
    body = msgspec.json.encode({"error": {**members, "retryable": False, "errors": []}})
    return Response(405, body, ((b"allow", allowed.encode()), _NO_STORE))


def not_found() -> Response:
    """Return 404 for an unknown path."""
    members = {
        "code": "unknown_path",
        "reason": "Unknown path.",
        "fix": "/api/openapi.json lists every path.",
    }
    body = msgspec.json.encode({"error": {**members, "retryable": False, "errors": []}})
    return Response(404, body, (_NO_STORE,))
