"""A result with what an expression finds in it instead of all it holds."""

from typing import Any

import msgspec

from toolbus_common.errors import ToolbusError
from toolbus_executor.mcp_messages.request_builder import SELECT
from toolbus_executor.results.selection.worker_client import Selector

_WHOLE = frozenset({"complete", None})


class _Result(msgspec.Struct):
    """The members of a result that can be selected from, or forbid it."""

    resultType: str | None = None  # noqa: N815 - the wire's own name
    isError: bool | None = None  # noqa: N815
    structuredContent: msgspec.Raw = msgspec.Raw(b"")  # noqa: N815
    content: list[Any] | None = None


async def selected(selector: Selector, expression: str, raw: bytes) -> bytes:
    """The result with what was found; where that cannot be told the result says so, and is whole.

    The call was made whatever becomes of the expression, so its result is never lost.
    """
    try:
        result = msgspec.json.decode(raw, type=_Result)
    except msgspec.DecodeError:
        return raw  # whoever reads it next says what is wrong with it
    if result.isError or result.resultType not in _WHOLE:
        return raw
    document = bytes(result.structuredContent) or _document_in(result.content)
    if not document:
        return _with_note(raw, "the result holds no JSON")
    try:
        found = await selector.select(expression, document)
    except ToolbusError as error:
        return _with_note(raw, error.reason)
    told: dict[str, Any] = msgspec.json.decode(raw)
    told["content"] = [{"type": "text", "text": found.decode()}]
    told.pop("structuredContent", None)
    if found.startswith(b"{"):
        told["structuredContent"] = msgspec.Raw(found)
    return msgspec.json.encode(told)


def _document_in(content: list[Any] | None) -> bytes:
    """What may be JSON: a lone text; empty where there is none."""
    texts = [block.get("text") for block in content or () if isinstance(block, dict)]
    return texts[0].encode() if len(texts) == 1 and isinstance(texts[0], str) else b""


def _with_note(raw: bytes, why: str) -> bytes:
    told: dict[str, Any] = msgspec.json.decode(raw)
    note = f"[{SELECT} was not applied: {why}. The call was made, and this is its whole result.]"
    content = told.get("content")
    told["content"] = [
        {"type": "text", "text": note},
        *(content if isinstance(content, list) else []),
    ]
    return msgspec.json.encode(told)
