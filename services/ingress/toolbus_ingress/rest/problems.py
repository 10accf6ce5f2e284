"""Problem details (RFC 9457): the bodies of all unsuccessful responses of the REST APIs."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from toolbus_common.access.oauth_scopes import LOOK
from toolbus_common.errors import (
    InsufficientScopeError,
    InvalidError,
    ToolbusError,
    UnauthorizedError,
)
from toolbus_ingress.auth.dpop import challenge_headers, rejection_code
from toolbus_ingress.auth.protected_resource import ProtectedResource
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import RejectedRequestError

MEDIA_TYPE = "application/problem+json"
APPROVALS = "/api/approvals"
_TYPE = "urn:toolbus:error:"
_HEADERS = ((b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store"))
_DEFAULT_STATUS = 403
# The statuses of errors that JSON-RPC sends with status 200.
_STATUSES = {
    "budget_exceeded": 402, "unknown_tool": 404, "rate_exceeded": 429, "invalid": 400,
    "invalid_arguments": 400, "upstream_timeout": 504, "upstream_failed": 502,
    "upstream_dead": 502, "upstream_invalid": 502, "upstream_refused": 502, "breaker_open": 503,
    "outcome_unknown": 502, "idempotency_conflict": 422, "call_in_progress": 409,
    "outcome_not_stored": 410, "unknown_model": 404, "model_refused": 502,
}  # fmt: skip
_FIXES = {
    "insufficient_scope": "Sign in again with the scope that the detail names.",
    "forbidden": "Ask an administrator with the required role, or change the request.",
    "unknown_entry": "List the existing entries, and use one of their names.",
    "unknown_approval": "List the pending approvals.",
    "unknown_path": "/api/openapi.json lists every path.",
    "method": "Use one of these methods.",
    "conflict": "Read the current entry, then repeat the change if it is still needed.",
    "stale": "Read the entry again, and send If-Match with its current revision.",
    "unconditional": "Send If-Match with the revision to replace, or *.",
    "invalid": "Change the request as the detail requires; /api/openapi.json describes it.",
    "invalid_configuration": "Correct what the detail and 'errors' describe, and send the "
    "request again; nothing was changed.",
}
_SIGN_IN = {
    True: "Send a valid admin key as Authorization: Bearer ('toolbus admins create' creates one), "
    "or sign in ('toolbus admins login').",
    False: "Send a valid API key as Authorization: Bearer ('toolbus keys create' creates one), or "
    "a valid access token.",
}
_RETRY = "Wait a moment, then send the request again."
_SEE_DETAIL = "Correct the problem that the detail describes."


class UnsupportedBodyError(InvalidError):
    """The body has a content type that the operation does not accept."""


def failure(
    error: ToolbusError, scope: Mapping[str, Any], protected_resource: ProtectedResource
) -> Response:
    """Return an error as a problem, with the challenge of the API that the path belongs to."""
    answer = jsonrpc.failure(error)
    fix = _FIXES.get(error.code, _RETRY if error.retryable else _SEE_DETAIL)
    if isinstance(error, UnauthorizedError):
        fix = _SIGN_IN[is_administration(scope["path"])]
    headers = answer.headers
    if isinstance(error, UnauthorizedError | InsufficientScopeError):
        headers = _challenge(error, answer, scope, protected_resource)
    response = _problem(
        status_of(error),
        error.code,
        error.reason,
        fix,
        retryable=error.retryable,
        data=error.data,
        headers=headers,
    )
    return msgspec.structs.replace(response, rejected=rejection_code(error))


def status_of(error: ToolbusError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, UnsupportedBodyError):
        return 415
    status = jsonrpc.failure(error).status
    return status if status != jsonrpc.OK else _STATUSES.get(error.code, _DEFAULT_STATUS)


def rejection(error: RejectedRequestError) -> Response:
    """Return a rejection of the request guard as a problem."""
    answer = error.response
    detail = msgspec.json.decode(answer.body)["error"]["message"]
    response = _problem(answer.status, str(error), detail, _SEE_DETAIL, headers=answer.headers)
    return msgspec.structs.replace(response, rejected=answer.rejected)


def method_not_allowed(methods: Sequence[str]) -> Response:
    """Return 405 with the methods of the path."""
    allowed = ", ".join(sorted(methods))
    detail = f"Method not allowed. Use {allowed}."
    return _problem(
        405, "method", detail, _FIXES["method"], headers=((b"allow", allowed.encode()),)
    )


def unknown_path() -> Response:
    """Return 404 for an unknown path."""
    return _problem(404, "unknown_path", "Unknown path.", _FIXES["unknown_path"])


def is_administration(path: str) -> bool:
    """Return whether a path requires an administrator, not a caller of tools."""
    return path.startswith("/api") and not path.startswith(APPROVALS)


def _problem(
    status: int,
    code: str,
    detail: str,
    fix: str,
    *,
    retryable: bool = False,
    data: Mapping[str, Any] | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Response:
    """Return a response with the members that `Problem` describes."""
    details = dict(data or {})
    members: dict[str, Any] = {
        "type": f"{_TYPE}{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "fix": fix,
        "retryable": retryable,
        "errors": details.pop("errors", []),
    }
    if details:
        members["data"] = details
    return Response(status, msgspec.json.encode(members), (*_HEADERS, *headers))


def _challenge(
    error: UnauthorizedError | InsufficientScopeError,
    answer: Response,
    scope: Mapping[str, Any],
    protected_resource: ProtectedResource,
) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that name the credential for the path (RFC 6750, RFC 9728)."""
    path: str = scope["path"]
    if is_administration(path):
        metadata, needed = protected_resource.admin_challenge, jsonrpc.scope_challenge(error)
        if metadata and not needed:
            needed = f', scope="{LOOK}"'.encode()
        challenge = b'Bearer realm="toolbus administration"' + needed + metadata
        return ((b"www-authenticate", challenge),)
    if isinstance(error, InsufficientScopeError):
        return protected_resource.with_metadata_url(answer, path).headers
    if path.startswith(APPROVALS):
        return challenge_headers(error, b"", b"")
    sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    return challenge_headers(error, protected_resource.challenge(path), sent.partition(b" ")[0])
