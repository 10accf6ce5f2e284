"""JSON-RPC responses, and the table of error codes that clients see."""

from math import ceil
from typing import Any

import msgspec
from msgspec import Struct

from toolbus_common import strict_json
from toolbus_common.errors import InsufficientScopeError, ToolbusError

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020  # MCP 2026-07-28
MISSING_CAPABILITY = -32021  # MCP 2026-07-28
UNSUPPORTED_VERSION = -32022  # MCP 2026-07-28
NO_RESOURCE = -32002  # until MCP 2025-11-25

OK = 200
BAD_REQUEST = 400
FORBIDDEN = 403
UNAVAILABLE = 503

# Toolbus' own codes lie outside the range that JSON-RPC and MCP reserve (-32768 to -32000).
# An error for the agent is sent with HTTP status 200, because older clients drop the body of any
# other status. Only errors that a load balancer must see have an HTTP status of their own.
_CODES: dict[str, tuple[int, int]] = {
    "unauthorized": (-31001, 401),
    "unknown_tool": (INVALID_PARAMS, OK),
    "unknown_model": (INVALID_PARAMS, OK),
    "invalid": (INVALID_PARAMS, OK),
    "invalid_arguments": (INVALID_PARAMS, OK),  # for a task; other calls get a tool result
    "refused": (-31002, OK),
    "budget_exceeded": (-31003, OK),
    "run_budget_exceeded": (-31044, OK),
    "rate_exceeded": (-31004, OK),
    "unknown_approval": (-31005, 404),
    "approval_rejected": (-31006, OK),
    "forbidden": (-31007, FORBIDDEN),
    "insufficient_scope": (-31055, FORBIDDEN),
    "unknown_entry": (-31050, 404),
    "conflict": (-31051, 409),
    "stale": (-31052, 412),
    "unconditional": (-31053, 428),
    "invalid_configuration": (-31054, 422),
    "loop_detected": (-31040, OK),
    "idempotency_conflict": (-31041, OK),
    "call_in_progress": (-31042, OK),
    "outcome_not_stored": (-31043, OK),
    "rule_denied": (-31008, OK),
    "approval_required": (-31009, OK),
    "guard_blocked": (-31045, OK),
    "flow_refused": (-31046, OK),
    "unavailable": (-31010, UNAVAILABLE),
    "bus_down": (-31011, UNAVAILABLE),
    "policy_down": (-31012, UNAVAILABLE),
    "executor_down": (-31013, UNAVAILABLE),
    "ledger_down": (-31014, UNAVAILABLE),
    "overloaded": (-31015, UNAVAILABLE),
    "ledger_rebuilding": (-31016, UNAVAILABLE),
    "guard_failed": (-31017, OK),
    "events_full": (-31018, UNAVAILABLE),
    "upstream_failed": (-31020, OK),
    "upstream_timeout": (-31021, OK),
    "upstream_dead": (-31022, OK),
    "breaker_open": (-31023, OK),
    "upstream_invalid": (-31024, OK),
    "upstream_refused": (-31025, OK),
    "cancelled": (-31026, OK),
    "server_drained": (-31027, OK),
    "model_refused": (-31028, OK),
    "outcome_unknown": (-31030, OK),
}


class Response(Struct, frozen=True):
    """One HTTP response: status, body, and headers other than content type and length.

    `rejected` is the reason for rejected credentials if the status alone does not show it.
    """

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    rejected: str = ""


def result(request_id: bytes, body: bytes) -> Response:
    """Return the response with a JSON-RPC result; both arguments are raw JSON."""
    return Response(OK, b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (request_id, body))


def notification(method: str, params: dict[str, Any]) -> bytes:
    """Return a notification; the member `params` is omitted if there are no params."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    return strict_json.dump({**body, "params": params} if params else body)


def error(
    status: int, code: int, message: str, *, request_id: bytes = b"null", data: Any = None
) -> Response:
    """Return the response with a JSON-RPC error; `code` is a code of JSON-RPC or MCP."""
    details: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        details["data"] = data
    body = b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (request_id, msgspec.json.encode(details))
    return Response(status, body)


def failure(failed: ToolbusError, request_id: bytes = b"null", call_id: str = "") -> Response:
    """Return the response for a `ToolbusError`: a JSON-RPC error with data for the client."""
    code, status = _CODES.get(failed.code, (INTERNAL_ERROR, 500))
    data = _data(failed)
    if call_id:
        data["callId"] = call_id
    answer = error(status, code, failed.reason, request_id=request_id, data=data)
    if status == UNAVAILABLE:
        return Response(status, answer.body, ((b"retry-after", _retry_after(failed)),))
    if isinstance(failed, InsufficientScopeError):
        challenge = b'Bearer realm="toolbus"' + scope_challenge(failed)
        return Response(status, answer.body, ((b"www-authenticate", challenge),), failed.code)
    return answer


def scope_challenge(failed: ToolbusError) -> bytes:
    """Return the challenge parameters for a missing scope; empty for any other error."""
    if not isinstance(failed, InsufficientScopeError):
        return b""
    return f', error="{failed.code}", scope="{failed.data.get("scope", "")}"'.encode()


def error_code(failed: ToolbusError) -> int:
    """Return the JSON-RPC code of an error."""
    return _CODES.get(failed.code, (INTERNAL_ERROR, 500))[0]


def _retry_after(failed: ToolbusError) -> bytes:
    """Return the Retry-After header: whole seconds, at least 1 (RFC 9110, 10.2.3)."""
    seconds = failed.data.get("retry_after")
    return b"%d" % max(1, ceil(seconds) if isinstance(seconds, int | float) else 1)


def task_error(failed: ToolbusError) -> dict[str, Any]:
    """Return an error as the `error` member of a task."""
    code, _ = _CODES.get(failed.code, (INTERNAL_ERROR, 500))
    return {"code": code, "message": failed.reason, "data": _data(failed)}


def _data(failed: ToolbusError) -> dict[str, Any]:
    return {"code": failed.code, "retryable": failed.retryable, **failed.data}
