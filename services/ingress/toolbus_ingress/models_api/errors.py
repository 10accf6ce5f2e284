"""Errors of model requests, in the form of the API that the client uses.

The statuses are those of the REST APIs (`rest.problems`), but the status of a provider's error is
the provider's own. The SDKs of OpenAI and Anthropic repeat requests with the statuses 408, 409, 429
and 5xx unless `x-should-retry` is false, so this header marks errors that would occur again.
"""

from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from math import ceil
from typing import Any

import msgspec

from toolbus_common.contracts.model_calls import CHAT
from toolbus_common.errors import ModelRefusedError, ToolbusError, UnauthorizedError
from toolbus_ingress.auth.protected_resource import ProtectedResource
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import RejectedRequestError
from toolbus_ingress.models_api.request_reader import InvalidBodyError
from toolbus_ingress.rest import problems

Header = tuple[bytes, bytes]

ERROR_CODE = b"x-toolbus-error"
_NOT_RETRIED: Header = (b"x-should-retry", b"false")
_RETRY_AFTER = b"retry-after"
_RETRIED_BY_SDKS = frozenset({408, 409, 429})
LONGEST_PAUSE = 86_400  # seconds; a longer pause of a provider is not passed on
_SERVER_ERROR, _LAST_STATUS = 500, 599
# The provider rejects the gateway's credential or account, which the client cannot change.
_GATEWAYS_FAULT = frozenset({401, 402, 403, 407})
_OPENAI_TYPES = {
    401: "authentication_error", 402: "insufficient_quota", 403: "permission_error",
    404: "not_found_error", 429: "rate_limit_error",
}  # fmt: skip
_OPENAI_CODES = {
    "unknown_model": "model_not_found", "unauthorized": "invalid_api_key",
    "budget_exceeded": "insufficient_quota", "rate_exceeded": "rate_limit_exceeded",
}  # fmt: skip
_ANTHROPIC_TYPES = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
    503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip


class Dialect(StrEnum):
    """The API whose form a response has."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


def failure(
    error: ToolbusError,
    dialect: Dialect,
    scope: Mapping[str, Any],
    protected_resource: ProtectedResource,
    headers: tuple[Header, ...] = (),
) -> Response:
    """Return the response for an error. `headers` are added to it."""
    problem = problems.failure(error, scope, protected_resource)
    status = status_of(error)
    own = [each for each in problem.headers if each[0] != b"content-type"]
    if not any(name == _RETRY_AFTER for name, _ in own) and (pause := _pause(error)):
        own.append((_RETRY_AFTER, pause))
    if not retryable(error) and (status in _RETRIED_BY_SDKS or status >= _SERVER_ERROR):
        own.append(_NOT_RETRIED)
    own.append((ERROR_CODE, error.code.encode()))
    return Response(status, error_object(error, dialect), (*own, *headers), problem.rejected)


def rejection(error: RejectedRequestError, dialect: Dialect) -> Response:
    """Return a rejection of the request guard in the form of an API."""
    problem = problems.rejection(error)
    own = tuple(each for each in problem.headers if each[0] != b"content-type")
    message = msgspec.json.decode(problem.body)["detail"]
    body = _object(problem.status, message, dialect, code=str(error))
    return Response(problem.status, body, own, problem.rejected)


def plain(status: int, message: str, dialect: Dialect, *headers: Header) -> Response:
    """Return a response for an error that has no code of Toolbus."""
    return Response(status, _object(status, message, dialect), headers)


def status_of(error: ToolbusError) -> int:
    """Return the HTTP status of an error."""
    if not isinstance(error, ModelRefusedError):
        return problems.status_of(error)
    status = error.data.get("status")
    if not isinstance(status, int) or not HTTPStatus.BAD_REQUEST <= status <= _LAST_STATUS:
        return HTTPStatus.BAD_GATEWAY
    return HTTPStatus.BAD_GATEWAY if status in _GATEWAYS_FAULT else status


def retryable(error: ToolbusError) -> bool:
    """Return whether the same request can succeed later."""
    if not isinstance(error, ModelRefusedError):
        return error.retryable
    status = error.data.get("status")
    return isinstance(status, int) and (
        status in _RETRIED_BY_SDKS or _SERVER_ERROR <= status <= _LAST_STATUS
    )


def error_object(error: ToolbusError, dialect: Dialect) -> bytes:
    """Return the error object of an API."""
    status, message, kind = status_of(error), error.reason, ""
    if isinstance(error, ModelRefusedError):
        if error.data.get("status") in _GATEWAYS_FAULT:
            # The provider's text can contain parts of the key, or name the operator's account.
            message = (
                "The provider rejected the credential of the gateway, not yours. Ask the operator "
                "to check the provider's key, with the call id of this response."
            )
        else:
            kind = str(error.data.get("type") or "")
    elif isinstance(error, UnauthorizedError) and dialect is Dialect.ANTHROPIC:
        message = f"{message} 'x-api-key: <key>' is accepted too."
    param = error.param if isinstance(error, InvalidBodyError) else ""
    if error.code == "unknown_model":
        param = "model"
    return _object(status, message, dialect, kind, error.code, param)


def error_event(error: ToolbusError, method: str, dialect: Dialect) -> bytes:
    """Return the last event of a stream that fails after its start."""
    body = error_object(error, dialect)
    if method == CHAT:
        return b"data: %b\n\n" % body
    if dialect is Dialect.OPENAI:
        # The responses API describes the flat form, and its SDKs look for the member `error`.
        inner = msgspec.json.decode(body)["error"]
        body = msgspec.json.encode({**inner, "type": "error", "sequence_number": 0, "error": inner})
    return b"event: error\ndata: %b\n\n" % body


def _object(
    status: int, message: str, dialect: Dialect, kind: str = "", code: str = "", param: str = ""
) -> bytes:
    if dialect is Dialect.ANTHROPIC:
        default = "api_error" if status >= _SERVER_ERROR else "invalid_request_error"
        kind = kind or _ANTHROPIC_TYPES.get(status, default)
        return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})
    default = "server_error" if status >= _SERVER_ERROR else "invalid_request_error"
    details = {
        "message": message,
        "type": kind or _OPENAI_TYPES.get(status, default),
        "param": param or None,
        "code": _OPENAI_CODES.get(code, code) or None,
    }
    return msgspec.json.encode({"error": details})


def _pause(error: ToolbusError) -> bytes:
    """Return the value of Retry-After: whole seconds (RFC 9110, 10.2.3); empty if unknown."""
    seconds = error.data.get("retry_after")
    if not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_PAUSE:
        return b""
    return b"%d" % max(1, ceil(seconds))
