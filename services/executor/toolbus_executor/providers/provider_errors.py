"""Errors of providers: the error for the caller, from an HTTP error response."""

from email.utils import parsedate_to_datetime
from math import isfinite
from time import time
from typing import Any

import msgspec

from toolbus_common.errors import (
    ModelRefusedError,
    ToolbusError,
    UpstreamDeadError,
    UpstreamInvalidError,
)
from toolbus_common.web.json_view import visible
from toolbus_executor.known_secrets import KnownSecrets
from toolbus_executor.transport.http1 import Head

MAX_TEXT, MAX_TYPE = 1000, 64  # characters
MAX_PARSED = 256 * 1024  # bytes of a body that is searched for a message
LONGEST_PAUSE = 3600.0
UNAVAILABLE = frozenset({502, 503, 504, 529})
BAD_REQUEST, UNAUTHORIZED, FAILED_DEPENDENCY, BAD_GATEWAY = 400, 401, 424, 502
_INVALID_KEY = b"API_KEY_INVALID"  # the reason in Google's `ErrorInfo`
_AWS_TYPE = b"x-amzn-errortype"
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


def refusal(provider: str, head: Head, body: bytes, secrets: KnownSecrets) -> ModelRefusedError:
    """Return the error for a response with an HTTP error status.

    Its reason is the provider's message, limited and without the secrets that Toolbus sent.
    """
    error = _error_in(body)
    text, kind = _message_in(error, head)
    (text, kind) = (visible(each) for each in secrets.struck([text[:MAX_TEXT], kind]))
    data: dict[str, Any] = {"status": status_of(head, body)}
    if kind:
        data["type"] = kind[:MAX_TYPE]
    if pause := retry_after(head) or _retry_delay(error):
        data["retry_after"] = pause
    reason = text[:MAX_TEXT] or (
        f"The provider '{provider}' returned HTTP {head.status} without a message; look up the "
        "status in its documentation."
    )
    return ModelRefusedError(reason, **data)


def stream_failure(
    failure: ToolbusError, secrets: KnownSecrets, *, is_partial: bool
) -> ToolbusError:
    """Return the error for a failure within a stream, without the secrets that Toolbus sent.

    If a part of the response was already sent to the caller (`is_partial`), the error is not a
    `ModelRefusedError`, so that the generated part is charged.
    """
    if not isinstance(failure, ModelRefusedError):
        return failure
    status, kind = failure.data["status"], str(failure.data.get("type", ""))
    (text, kind) = (visible(each) for each in secrets.struck([failure.reason[:MAX_TEXT], kind]))
    if not is_partial:
        named = {"type": kind[:MAX_TYPE]} if kind else {}
        return ModelRefusedError(text, status=status, **named)
    if status in UNAVAILABLE:
        return UpstreamDeadError(text)
    return UpstreamInvalidError(text)


def retry_after(head: Head) -> float:
    """Return the pause in seconds that a response names; 0 if it names none.

    Source: RFC 9110, section 10.2.3 (seconds or a date); `retry-after-ms` is OpenAI's.
    """
    milliseconds = _number(head.headers.get(b"retry-after-ms", b""))
    if milliseconds > 0:
        return round(min(milliseconds / 1000, LONGEST_PAUSE), 3)
    value = head.headers.get(b"retry-after", b"")
    seconds = _number(value)
    if not seconds and value:
        try:
            seconds = parsedate_to_datetime(value[:64].decode("ascii", "replace")).timestamp()
            seconds -= time()
        except (ValueError, OverflowError):
            return 0.0
    return round(max(0.0, min(seconds, LONGEST_PAUSE)), 3)


def _number(value: bytes) -> float:
    try:
        number = float(value[:32])
    except ValueError:
        return 0.0
    return number if isfinite(number) else 0.0


def status_of(head: Head, body: bytes) -> int:
    """Return the status of an error. The 400 of Google for an invalid key becomes 401."""
    if head.status == BAD_REQUEST and _INVALID_KEY in body[:MAX_PARSED]:
        return UNAUTHORIZED
    if head.status == FAILED_DEPENDENCY and head.headers.get(_AWS_TYPE):
        return BAD_GATEWAY  # the model of Bedrock failed, so another target can serve the request
    return head.status


def _error_in(body: bytes) -> dict[str, Any]:
    """Return the members of an error body; empty if it contains no error."""
    if len(body) > MAX_PARSED:
        return {}
    try:
        decoded = msgspec.json.decode(body)
    except _UNREADABLE:
        return {}  # often the HTML page of a proxy
    if isinstance(decoded, list) and decoded:  # a stream of Google without server-sent events
        decoded = decoded[0]
    if not isinstance(decoded, dict):
        return {}
    error = decoded.get("error", decoded)
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _message_in(error: dict[str, Any], head: Head) -> tuple[str, str]:
    """Return the message and the type of an error. Both are empty if it contains none."""
    names = ("message", "detail", "Message")  # AWS's edge writes the last one
    text = next((each for name in names if isinstance(each := error.get(name), str)), "")
    kinds = (error.get(name) for name in ("type", "code", "status"))
    kind = next((each for each in kinds if isinstance(each, str)), "")
    if not kind:  # AWS sends the type in a header, with a URL after a colon
        kind = head.headers.get(_AWS_TYPE, b"")[:MAX_TYPE].decode("latin-1").partition(":")[0]
    return text, kind


def _retry_delay(error: dict[str, Any]) -> float:
    """Return the pause in seconds of Google's `RetryInfo`; 0 without one."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and delay.endswith("s"):
            seconds = _number(delay[:-1].encode("ascii", "replace"))
            return round(max(0.0, min(seconds, LONGEST_PAUSE)), 3)
    return 0.0
