"""Conversion of an API's response to a tool result, within limits."""

import base64
import re
from http import HTTPStatus
from typing import Any

import msgspec

from toolbus_executor.transport.http1 import Head

LARGEST_RESULT = 6 * 1024 * 1024  # bytes; a result must fit into a message on the bus
LONGEST_ERROR = 4_000  # characters of an error's text
LONGEST_LINK = 1_000
_ERRORS = 400
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
_TAG = re.compile(
    r"<(?:script|style)\b.*?</(?:script|style)\s*>|<[^<>]*>", re.IGNORECASE | re.DOTALL
)
_SHOWN_HEADERS = ("content-type", "content-length", "last-modified", "etag")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode


def result_of(
    head: Head, body: bytes, path: str, *, structured: bool, bodiless: bool, bounded: bool = True
) -> bytes:
    """Return the raw result of a call.

    Args:
        head: the head of the response.
        body: the body of the response, without secrets.
        path: the path of the request.
        structured: whether the tool has an output schema.
        bodiless: whether the request was a HEAD request.
        bounded: whether a result that is too large must be rejected, because it cannot be stored.

    """
    if head.status >= _ERRORS:
        return _encode({"content": [_text(_error(head, body))], "isError": True})
    if bodiless:
        made: dict[str, Any] = {"content": [_text(_of_head(head))]}
    else:
        made = _success(head, body, path, structured=structured)
    link = _words(head, b"link")
    if 'rel="next"' in link or "rel=next" in link:
        made["content"].append(_text(f"Link: {link[:LONGEST_LINK]}"))
    raw = _encode(made)
    return raw if len(raw) <= LARGEST_RESULT or not bounded else _refused(_too_large(len(body)))


def elsewhere(head: Head) -> bytes:
    """Return the result for a redirect that was not followed."""
    return _refused(
        f"The API returned HTTP {head.status}, a redirect; it was not followed. Configure the "
        "current URL of the API."
    )


def _refused(message: str) -> bytes:
    return _encode({"content": [_text(message)], "isError": True})


def _success(head: Head, body: bytes, path: str, *, structured: bool) -> dict[str, Any]:
    media = _words(head, b"content-type").partition(";")[0].strip().lower()
    if not body:
        made: dict[str, Any] = {"content": [_text(f"Done (HTTP {head.status}, no content).")]}
        return made | ({"structuredContent": {}} if structured else {})
    if media.endswith("json") or (structured and not media):
        return _of_json(body, structured=structured)
    content = _of_media(media, body, path)
    if not structured:
        return {"content": [content]}
    return {"content": [content], "structuredContent": {}}


def _of_json(body: bytes, *, structured: bool) -> dict[str, Any]:
    try:
        decoded = _decode(body)
        text = body.decode("utf-8-sig")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _as_text(body) | ({"structuredContent": {}} if structured else {})
    made: dict[str, Any] = {"content": [_text(text)]}
    if isinstance(decoded, dict):
        made["structuredContent"] = decoded
    elif structured:
        made["structuredContent"] = {"result": decoded}
    return made


def _as_text(body: bytes) -> dict[str, Any]:
    return {"content": [_text(body.decode("utf-8", "replace"))]}


def _of_media(media: str, body: bytes, path: str) -> dict[str, Any]:
    kind = media.partition("/")[0]
    if kind in ("image", "audio") and not media.endswith("xml"):
        return {"type": kind, "data": base64.b64encode(body).decode(), "mimeType": media}
    try:
        text = body.decode()
    except UnicodeDecodeError:
        blob = {"uri": f"openapi:{path}", "blob": base64.b64encode(body).decode()}
        named = {"mimeType": media or "application/octet-stream"}
        return {"type": "resource", "resource": blob | named}
    return _text(text)


def _error(head: Head, body: bytes) -> str:
    text = body[: 2 * LONGEST_ERROR].decode("utf-8", "replace")
    if "html" in _words(head, b"content-type"):
        text = re.sub(r"\s{2,}", "\n", _TAG.sub(" ", text))
    text = _CONTROL.sub("", text).strip()
    if len(text) > LONGEST_ERROR:
        text = f"{text[:LONGEST_ERROR]}…"
    again = _words(head, b"retry-after")
    first = f"HTTP {head.status} {_phrase(head.status)}".strip()
    first += f" (retry after {again[:40]})" if again else ""
    return f"{first}: {text}" if text else f"{first}."


def _of_head(head: Head) -> str:
    headers = [(name, _words(head, name.encode())) for name in _SHOWN_HEADERS]
    lines = [f"{name}: {value[:200]}" for name, value in headers if value]
    return "\n".join([f"HTTP {head.status}", *lines])


def _words(head: Head, name: bytes) -> str:
    return _CONTROL.sub("", head.headers.get(name, b"").decode("latin-1"))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _too_large(size: int) -> str:
    return (
        f"The API returned {size} bytes, which is too large to return; request less with a "
        "narrower query or a smaller page."
    )
