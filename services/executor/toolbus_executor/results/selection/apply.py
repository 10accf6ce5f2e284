"""Application of a selection to the result of a call."""

from typing import Any

import msgspec

from toolbus_common.errors import ToolbusError
from toolbus_executor.mcp_messages.request_builder import SELECT
from toolbus_executor.results.selection.worker_client import Selector

_WHOLE = frozenset({"complete", None})


class _Result(msgspec.Struct):
    """The members of a result that a selection reads or depends on."""

    resultType: str | None = None  # noqa: N815 - the wire's own name
    isError: bool | None = None  # noqa: N815
    structuredContent: msgspec.Raw = msgspec.Raw(b"")  # noqa: N815
    content: list[Any] | None = None


async def apply_selection(selector: Selector, expression: str, raw: bytes) -> bytes:
    """Return the result with the selected part in place of its content.

    If the selection fails, return the whole result with a note. The call was executed, so its
    result must not be lost.
    """
    try:
        result = msgspec.json.decode(raw, type=_Result)
    except msgspec.DecodeError:
        return raw  # a later decoder reports the error
    if result.isError or result.resultType not in _WHOLE:
        return raw
    document = bytes(result.structuredContent) or _document_in(result.content)
    if not document:
        return _with_note(raw, "the result has no JSON")
    try:
        found = await selector.select(expression, document)
    except ToolbusError as error:
        return _with_note(raw, error.reason)
    new_result: dict[str, Any] = msgspec.json.decode(raw)
    new_result["content"] = [{"type": "text", "text": found.decode()}]
    new_result.pop("structuredContent", None)
    if found.startswith(b"{"):
        new_result["structuredContent"] = msgspec.Raw(found)
    return msgspec.json.encode(new_result)


def _document_in(content: list[Any] | None) -> bytes:
    """Return the text of the only text block, which can be JSON; empty without such a block."""
    texts = [block.get("text") for block in content or () if isinstance(block, dict)]
    return texts[0].encode() if len(texts) == 1 and isinstance(texts[0], str) else b""


def _with_note(raw: bytes, why: str) -> bytes:
    new_result: dict[str, Any] = msgspec.json.decode(raw)
    note = f"[{SELECT} was not applied: {why}. The call was executed; this is its whole result.]"
    content = new_result.get("content")
    new_result["content"] = [
        {"type": "text", "text": note},
        *(content if isinstance(content, list) else []),
    ]
    return msgspec.json.encode(new_result)
