"""Reading a kept result: a piece of it, for the principal whose call made it."""

from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import InvalidError, UnknownToolError
from toolbus_common.mcp.result_uris import Piece, piece_of
from toolbus_executor.results.large.store import Manifest, Vault
from toolbus_executor.results.selection.expressions import checked
from toolbus_executor.results.selection.worker_client import LARGEST_DOCUMENT

META = "dev.toolbus/result"
_CONTINUES = 0b10  # the two high bits of a byte that is not the first of its character


Select = Callable[[str, bytes], Awaitable[bytes]]


async def read(vault: Vault, call: CallAdmitted, select: Select | None) -> bytes:
    """The raw result of a `resources/read`: a piece, or what `select` finds in the whole.

    Raises:
        UnknownToolError: there is none, it is over, or another principal's: all told alike.

    """
    piece = piece_of(call.tool)
    manifest = await vault.manifest(piece.handle, call) if piece is not None else None
    if piece is None or manifest is None:
        raise _gone(call)
    if piece.offset >= max(manifest.size, 1):
        raise InvalidError(f"The result has {manifest.size} bytes; ask for a smaller offset.")
    if piece.select and select is not None:
        return await _selected(vault, call, piece, manifest, select)
    value = await vault.read(manifest, piece.offset, piece.length)
    if value is None:
        raise _gone(call)
    return msgspec.json.encode({"contents": [_told(call.tool, piece, manifest, value)]})


async def _selected(
    vault: Vault, call: CallAdmitted, piece: Piece, manifest: Manifest, select: Select
) -> bytes:
    expression = checked(piece.select)
    if manifest.size > LARGEST_DOCUMENT:
        raise InvalidError(
            f"The result has {manifest.size} bytes, and only of one up to {LARGEST_DOCUMENT} a "
            "part can be selected; read it by offset and length.",
            sent=False,
        )
    document = await vault.read(manifest, 0, manifest.size)
    if document is None:
        raise _gone(call)
    found = (await select(expression, document)).decode()
    content = {"uri": call.tool, "mimeType": "application/json", "text": found}
    return msgspec.json.encode({"contents": [content]})


def _told(uri: str, piece: Piece, manifest: Manifest, value: bytes) -> dict[str, Any]:
    if manifest.is_text:
        value = _whole_characters(value, last=piece.offset + len(value) >= manifest.size)
        told = {"text": value.decode("utf-8", "replace")}
    else:
        told = {"blob": b64encode(value).decode()}
    end = piece.offset + len(value)
    about: dict[str, Any] = {"offset": piece.offset, "bytes": len(value), "size": manifest.size}
    if end < manifest.size:
        about["next"] = piece.handle.uri(end, piece.length)
    return {"uri": uri, "mimeType": manifest.media, **told, "_meta": {META: about}}


def _whole_characters(value: bytes, *, last: bool) -> bytes:
    """Without the beginning of a character that goes on; the next piece has it whole."""
    if last:
        return value
    end = len(value)
    while end > max(len(value) - 4, 1) and value[end - 1] >> 6 == _CONTINUES:
        end -= 1
    begun = end > 1 and value[end - 1] >> 6 == 0b11  # noqa: PLR2004 - a first byte of several
    return value[: end - 1] if begun else value


def _gone(call: CallAdmitted) -> UnknownToolError:
    error = UnknownToolError.named(call.tool[:512], call.method)
    error.data["sent"] = False
    return error
