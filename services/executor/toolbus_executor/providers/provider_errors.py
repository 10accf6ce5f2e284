"""Errors of providers: the error for the caller, from an HTTP error response."""

from email.utils import parsedate_to_datetime
from math import isfinite
from time import time
from typing import Any

import msgspec

from toolbus_common.errors import ModelRefusedError
from toolbus_common.web.json_view import visible
from toolbus_executor.known_secrets import KnownSecrets
from toolbus_executor.transport.http1 import Head

MAX_TEXT, MAX_TYPE = 1000, 64  # characters
MAX_PARSED = 256 * 1024  # bytes of a body that is searched for a message
LONGEST_PAUSE = 3600.0
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


def refusal(provider: str, head: Head, body: bytes, secrets: KnownSecrets) -> ModelRefusedError:
    """Return the error for a response with an HTTP error status.

    Its reason is the provider's message, limited and without the secrets that Toolbus sent.
    """
    text, kind = _message_in(body)
    (text, kind) = (visible(each) for each in secrets.struck([text[:MAX_TEXT], kind]))
    data: dict[str, Any] = {"status": head.status}
    if kind:
        data["type"] = kind[:MAX_TYPE]
    if pause := retry_after(head):
        data["retry_after"] = pause
    reason = text[:MAX_TEXT] or (
        f"The provider '{provider}' returned HTTP {head.status} without a message; look up the "
        "status in its documentation."
    )
    return ModelRefusedError(reason, **data)


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


def _message_in(body: bytes) -> tuple[str, str]:
    """Return the message and the type of an error body. Both are empty if it contains none."""
    if len(body) > MAX_PARSED:
        return "", ""
    try:
        decoded = msgspec.json.decode(body)
    except _UNREADABLE:
        return "", ""  # often the HTML page of a proxy
    if not isinstance(decoded, dict):
        return "", ""
    error = decoded.get("error", decoded)
    if isinstance(error, str):
        return error, ""
    if not isinstance(error, dict):
        return "", ""
    text = next(
        (each for name in ("message", "detail") if isinstance(each := error.get(name), str)), ""
    )
    kind = next((each for name in ("type", "code") if isinstance(each := error.get(name), str)), "")
    return text, kind
