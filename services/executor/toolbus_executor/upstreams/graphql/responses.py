"""Conversion of a GraphQL response to a tool result, within limits."""

from http import HTTPStatus
from typing import Any

import msgspec

LARGEST_RESULT = 6 * 1024 * 1024  # bytes; a result must fit into a message on the bus
MAX_ERRORS, LONGEST_ERROR, LONGEST_BODY = 10, 1_000, 2_000
_ERRORS = 400
_encode = msgspec.json.Encoder().encode


class _Response(msgspec.Struct):
    """A GraphQL response. Text that cannot be decoded as this class is no GraphQL response."""

    data: dict[str, msgspec.Raw] | None = None
    errors: list[dict[str, Any]] | None = None


_response = msgspec.json.Decoder(_Response).decode


def result_of(status: int, body: bytes, field: str) -> bytes:
    """Return the tool result for a call of this field. Errors are returned with partial data."""
    try:
        response = _response(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return refused(_http(status, body))
    if response.errors:
        return _limited(refused(_errors(response.errors), *_data(response, field)))
    if response.data is None or status >= _ERRORS:
        return refused(_http(status, body))
    raw = response.data.get(field, msgspec.Raw(b"null"))
    made: dict[str, Any] = {"content": [_text(bytes(raw).decode("utf-8", "replace"))]}
    if bytes(raw)[:1] == b"{":
        made["structuredContent"] = raw
    return _limited(_encode(made))


def refused(*messages: str) -> bytes:
    """Return an error result with these messages."""
    return _encode({"content": [_text(each) for each in messages], "isError": True})


def _data(response: _Response, field: str) -> list[str]:
    raw = bytes((response.data or {}).get(field, msgspec.Raw(b"null")))
    return [] if raw == b"null" else [f"Partial data: {raw.decode('utf-8', 'replace')}"]


def _errors(errors: list[dict[str, Any]]) -> str:
    shown = [_error(each) for each in errors[:MAX_ERRORS]]
    more = len(errors) - MAX_ERRORS
    return "\n".join([*shown, *([f"and {more} more errors"] if more > 0 else [])])


def _error(each: dict[str, Any]) -> str:
    path, extensions = each.get("path"), each.get("extensions")
    where = f" (at {'.'.join(map(str, path[:16]))})" if isinstance(path, list) and path else ""
    code = extensions.get("code") if isinstance(extensions, dict) else None
    prefix = f"{code}: " if isinstance(code, str) else ""
    return (prefix + str(each.get("message", "an error without a message")))[:LONGEST_ERROR] + where


def _http(status: int, body: bytes) -> str:
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    text = body[:LONGEST_BODY].decode("utf-8", "replace").strip()
    return f"HTTP {status} {phrase}: {text or 'no GraphQL in the response'}"


def _limited(raw: bytes) -> bytes:
    if len(raw) <= LARGEST_RESULT:
        return raw
    return refused(
        f"The response is too large ({len(raw)} bytes of at most {LARGEST_RESULT}); request less "
        "with 'select' or the arguments."
    )


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
