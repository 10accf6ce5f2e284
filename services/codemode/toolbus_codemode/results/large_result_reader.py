"""Reader of large tool results for `results.read`: whole, a range, or a selection."""

from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from toolbus_codemode.sandbox.program import Failure, ToolOutcome
from toolbus_common.contracts import CallResult, FinalReply
from toolbus_common.mcp.result_uris import MAX_LENGTH, SCHEME, Handle, parse_result_uri

LARGEST = 4 << 20  # bytes of a result that can be read whole
_META = "dev.toolbus/result"
# Reads one piece by its URI with `resources/read`, which policy authorizes and records.
ReadPiece = Callable[[Handle, str], Awaitable[FinalReply]]


class _InvalidReadError(Exception):
    """The read is invalid; the message contains the fix."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Piece of a result, and the URI of the next piece."""

    value: bytes
    media: str
    is_text: bool
    size: int
    following: str


def uri_in(given: Any) -> str | None:
    """Return the only URI in a handle, a link block or a list of content blocks, or None."""
    blocks = given if isinstance(given, list) else [given]
    found = [uri for block in blocks if (uri := _uri_of(block)).startswith(SCHEME)]
    return found[0] if len(found) == 1 else None


async def read(read_piece: ReadPiece, uri: str, arguments: dict[str, Any]) -> ToolOutcome:
    """Return a large result: decoded JSON, text, or base64 of binary data.

    `offset` and `length` select a range of bytes; `select` is a JMESPath expression that selects a
    part of JSON. Raises `ToolbusError` if a read is denied.
    """
    piece = parse_result_uri(uri)
    if piece is None:
        return _failed(
            f"{uri[:200]!r} is not the URI of a large result. Use the URI that a tool returned."
        )
    try:
        if query := _uri_query(arguments):
            part = await _part(read_piece, piece.handle, f"{piece.handle.uri()}?{query}")
            return ToolOutcome(_decoded(part, as_json="select" in arguments))
        return ToolOutcome(await _whole(read_piece, piece.handle))
    except _InvalidReadError as error:
        return _failed(str(error))


async def _whole(read_piece: ReadPiece, handle: Handle) -> Any:
    parts: list[bytes] = []
    uri = handle.uri(0, MAX_LENGTH)
    while True:
        part = await _part(read_piece, handle, uri)
        if part.size > LARGEST:
            raise _InvalidReadError(
                f"The result has {part.size} bytes, and {LARGEST} can be read at once. Read a "
                "piece with offset= and length=, or a part of JSON with select=."
            )
        parts.append(part.value)
        if not part.following:
            whole = _Part(b"".join(parts), part.media, part.is_text, part.size, "")
            return _decoded(whole, as_json=part.media.endswith("json"))
        uri = part.following


async def _part(read_piece: ReadPiece, handle: Handle, uri: str) -> _Part:
    reply = await read_piece(handle, uri)
    if not isinstance(reply, CallResult):
        raise _InvalidReadError(
            "A program cannot read this result. Read it with resources/read, outside of a program."
        )
    content = msgspec.json.decode(reply.body)["contents"][0]
    is_text = "text" in content
    value = content["text"].encode() if is_text else b64decode(content["blob"])
    about = (content.get("_meta") or {}).get(_META) or {}
    return _Part(
        value,
        str(content.get("mimeType", "")),
        is_text,
        int(about.get("size", len(value))),
        str(about.get("next", "")),
    )


def _decoded(part: _Part, *, as_json: bool) -> Any:
    if not part.is_text:
        return b64encode(part.value).decode()
    text = part.value.decode()
    if not as_json:
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _uri_query(arguments: dict[str, Any]) -> str:
    """Return the URI query for a program's arguments, or an empty text for the whole result."""
    select = arguments.get("select")
    if select is not None:
        if not isinstance(select, str) or not select:
            raise _InvalidReadError("select must be a JMESPath expression, as text.")
        return f"select={quote(select, safe='')}"
    given = {name: arguments[name] for name in ("offset", "length") if name in arguments}
    for name, value in given.items():
        if type(value) is not int or value < (name == "length"):
            raise _InvalidReadError(f"{name} must be a number of bytes.")
    if not given:
        return ""
    return f"offset={given.get('offset', 0)}&length={given.get('length', MAX_LENGTH)}"


def _uri_of(given: Any) -> str:
    if isinstance(given, dict) and given.get("type") == "resource_link":
        given = given.get("uri")
    return given if isinstance(given, str) else ""


def _failed(text: str) -> ToolOutcome:
    return ToolOutcome(failure=Failure("unreadable_result", text))
