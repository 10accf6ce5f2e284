"""What a client is told: the endpoint's own answers, and a sentence where there is none."""

import json
from typing import Any

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020  # MCP 2026-07-28
# The codes the endpoint has for the same things.
UNAVAILABLE = -31010
OUTCOME_UNKNOWN = -31030

_MENDS = {
    401: "Check the key in --key, --key-file or TOOLBUS_KEY; 'toolbus keys create' makes one.",
    503: "Look with 'toolbus status'.",
}


def parsed(raw: bytes) -> dict[str, Any]:
    """A JSON-RPC message; empty when it is none."""
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    good = isinstance(message, dict) and message.get("jsonrpc") == "2.0"
    return message if good else {}


def is_answer(message: dict[str, Any]) -> bool:
    """Whether it ends a request."""
    return "method" not in message and ("result" in message or "error" in message)


def code_of(message: dict[str, Any]) -> int:
    """The error's code; 0 for what is no error."""
    error = message.get("error")
    code = error.get("code") if isinstance(error, dict) else 0
    return code if isinstance(code, int) else 0


def for_request(raw: bytes, request_id: Any, status: int, url: str) -> bytes:
    """The endpoint's answer as the answer to a request; unchanged where it is one already."""
    message = parsed(raw)
    if not is_answer(message):
        sentence = f"{url} answered {status} without JSON-RPC; name a Toolbus endpoint with --url."
        return failure(request_id, UNAVAILABLE, sentence, "unavailable")
    if message.get("id") == request_id and status not in _MENDS:
        return raw
    error = message.get("error")
    if isinstance(error, dict) and status in _MENDS:
        message["error"] = {**error, "message": f"{error.get('message')} {_MENDS[status]}"}
    return json.dumps({**message, "id": request_id}).encode()


def failure(request_id: Any, code: int, sentence: str, word: str = "") -> bytes:
    """An error of the bridge's own; `word` is its code for programs."""
    error: dict[str, Any] = {"code": code, "message": sentence}
    if word:
        error["data"] = {"code": word, "retryable": word == "unavailable"}
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode()


def unreached(request_id: Any, url: str, why: str) -> bytes:
    """There is no connection: nothing was sent."""
    sentence = f"{url} cannot be reached ({why}); start it with 'toolbus up', or check --url."
    return failure(request_id, UNAVAILABLE, sentence, "unavailable")


def lost(request_id: Any, url: str, why: str) -> bytes:
    """The connection ended too soon."""
    sentence = f"{url} broke off before its answer ({why}); the request may have been carried out."
    return failure(request_id, OUTCOME_UNKNOWN, sentence, "outcome_unknown")
