"""JSON-RPC replies to the client: replies of the endpoint, and errors of the bridge."""

import json
from typing import Any

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020  # MCP 2026-07-28
# The endpoint uses the same codes for these errors.
UNAVAILABLE = -31010
OUTCOME_UNKNOWN = -31030

_FIXES = {
    401: "Check the key in --key, --key-file or TOOLBUS_KEY; 'toolbus keys create' creates one.",
    503: "Check 'toolbus status'.",
}


def parsed(raw: bytes) -> dict[str, Any]:
    """Parse a JSON-RPC message; return an empty dictionary if it is invalid."""
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    good = isinstance(message, dict) and message.get("jsonrpc") == "2.0"
    return message if good else {}


def is_answer(message: dict[str, Any]) -> bool:
    """Return whether a message is the final reply to a request."""
    return "method" not in message and ("result" in message or "error" in message)


def code_of(message: dict[str, Any]) -> int:
    """Return the code of an error reply, or 0 if the message is not an error."""
    error = message.get("error")
    code = error.get("code") if isinstance(error, dict) else 0
    return code if isinstance(code, int) else 0


def for_request(raw: bytes, request_id: Any, status: int, url: str) -> bytes:
    """Return the endpoint's response as a reply with the request's id and, on errors, a fix."""
    message = parsed(raw)
    if not is_answer(message):
        text = f"{url} returned {status} without JSON-RPC; set a Toolbus endpoint with --url."
        return failure(request_id, UNAVAILABLE, text, "unavailable")
    if message.get("id") == request_id and status not in _FIXES:
        return raw
    error = message.get("error")
    if isinstance(error, dict) and status in _FIXES:
        message["error"] = {**error, "message": f"{error.get('message')} {_FIXES[status]}"}
    return json.dumps({**message, "id": request_id}).encode()


def failure(request_id: Any, code: int, text: str, word: str = "") -> bytes:
    """Return an error reply; `code` is the JSON-RPC code, `word` is the Toolbus code."""
    error: dict[str, Any] = {"code": code, "message": text}
    if word:
        error["data"] = {"code": word, "retryable": word == "unavailable"}
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode()


def unreached(request_id: Any, url: str, why: str) -> bytes:
    """Return the error for a request that was not sent because there is no connection."""
    text = f"Cannot connect to {url} ({why}); start it with 'toolbus up', or check --url."
    return failure(request_id, UNAVAILABLE, text, "unavailable")


def lost(request_id: Any, url: str, why: str) -> bytes:
    """Return the error for a connection that closed before the response was complete."""
    text = (
        f"{url} closed the connection before it replied ({why}); "
        "the request may have been executed."
    )
    return failure(request_id, OUTCOME_UNKNOWN, text, "outcome_unknown")
