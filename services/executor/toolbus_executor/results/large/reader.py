"""Reader of parts of a stored result. Only the principal that made the call can read it."""

from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import InvalidError, UnknownToolError
from toolbus_common.mcp.result_uris import ResultPiece, parse_result_uri
from toolbus_executor.results.large.store import LargeResultStore, Manifest
from toolbus_executor.results.selection.expressions import parse_expression
from toolbus_executor.results.selection.worker_client import LARGEST_DOCUMENT

META = "dev.toolbus/result"
LARGEST_CHECKED = 16 << 20  # bytes of a value that guards check
_CONTINUES = 0b10  # the two high bits of every byte of a character except the first


Select = Callable[[str, bytes], Awaitable[bytes]]


class Checks(Protocol):
    """The guards that apply to a call."""

    @property
    def marks(self) -> tuple[str, ...]:
        """What identifies the guards, with their settings."""
        ...

    async def stored(self, value: bytes, *, size: int, is_text: bool) -> bytes:
        """Return a stored value as the caller may receive it. Raises the error of a guard.

        `value` is empty if the value of `size` bytes is too large for the guards.
        """
        ...


async def read(
    store: LargeResultStore,
    call: CallAdmitted,
    select: Select | None,
    checks: Checks | None = None,
) -> bytes:
    """Return the raw result of a `resources/read`: a part of the result, or a selection.

    `select` evaluates selections. `checks` are applied to the whole stored value, unless it has
    passed them, so that no part and no selection contains what they remove.

    Raises:
        UnknownToolError: the result does not exist, has expired, or belongs to another principal.
        InvalidError: the offset or the selection is invalid.

    """
    piece = parse_result_uri(call.tool)
    manifest = await store.manifest(piece.handle, call) if piece is not None else None
    if piece is None or manifest is None:
        raise _unknown(call)
    whole = None
    if checks is not None and not set(checks.marks) <= {*manifest.checked}:
        whole = await _checked(store, call, manifest, checks)
    if whole is not None:
        manifest = msgspec.structs.replace(manifest, size=len(whole))
    if piece.offset >= max(manifest.size, 1):
        raise InvalidError(f"The result has {manifest.size} bytes; use a smaller offset.")
    if piece.select and select is not None:
        return await _selected(store, call, piece, manifest, select, whole)
    if whole is not None:
        value: bytes | None = whole[piece.offset : piece.offset + piece.length]
    else:
        value = await store.read(manifest, piece.offset, piece.length)
    if value is None:
        raise _unknown(call)
    return msgspec.json.encode({"contents": [_content(call.tool, piece, manifest, value)]})


async def _checked(
    store: LargeResultStore, call: CallAdmitted, manifest: Manifest, checks: Checks
) -> bytes | None:
    """Return the checked value; None if it is too large to check and the guards allow that."""
    is_text = manifest.is_text
    if manifest.size > LARGEST_CHECKED:
        await checks.stored(b"", size=manifest.size, is_text=is_text)
        return None
    value = await store.read(manifest, 0, manifest.size)
    if value is None:
        raise _unknown(call)
    return await checks.stored(value, size=manifest.size, is_text=is_text)


async def _selected(
    store: LargeResultStore,
    call: CallAdmitted,
    piece: ResultPiece,
    manifest: Manifest,
    select: Select,
    whole: bytes | None,
) -> bytes:
    expression = parse_expression(piece.select)
    if manifest.size > LARGEST_DOCUMENT:
        raise InvalidError(
            f"The result has {manifest.size} bytes; selection is limited to {LARGEST_DOCUMENT}. "
            "Read it by offset and length.",
            sent=False,
        )
    document = whole
    if document is None:
        document = await store.read(manifest, 0, manifest.size)
    if document is None:
        raise _unknown(call)
    found = (await select(expression, document)).decode()
    content = {"uri": call.tool, "mimeType": "application/json", "text": found}
    return msgspec.json.encode({"contents": [content]})


def _content(uri: str, piece: ResultPiece, manifest: Manifest, value: bytes) -> dict[str, Any]:
    if manifest.is_text:
        value = _whole_characters(value, last=piece.offset + len(value) >= manifest.size)
        body = {"text": value.decode("utf-8", "replace")}
    else:
        body = {"blob": b64encode(value).decode()}
    end = piece.offset + len(value)
    about: dict[str, Any] = {"offset": piece.offset, "bytes": len(value), "size": manifest.size}
    if end < manifest.size:
        about["next"] = piece.handle.uri(end, piece.length)
    return {"uri": uri, "mimeType": manifest.media, **body, "_meta": {META: about}}


def _whole_characters(value: bytes, *, last: bool) -> bytes:
    """Return the value without an incomplete character at its end.

    The last part of a result (`last`) is returned unchanged.
    """
    if last:
        return value
    end = len(value)
    while end > max(len(value) - 4, 1) and value[end - 1] >> 6 == _CONTINUES:
        end -= 1
    incomplete = end > 1 and value[end - 1] >> 6 == 0b11  # noqa: PLR2004 - the first of several bytes
    return value[: end - 1] if incomplete else value


def _unknown(call: CallAdmitted) -> UnknownToolError:
    error = UnknownToolError.named(call.tool[:512], call.method)
    error.data["sent"] = False
    return error
