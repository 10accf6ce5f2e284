"""Translation of the messages of the messages API to those of the Converse API."""

import re
from base64 import b64encode
from itertools import chain
from typing import Any

from toolbus_common.errors import InvalidError
from toolbus_executor.providers.translation.apis import gemini, messages
from toolbus_executor.providers.translation.body import CONVERSE_API, unsupported

_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_IMAGES["image/jpg"] = "jpeg"
_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_SHEET = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_DOCUMENTS = {
    "application/pdf": "pdf", "text/csv": "csv", "application/msword": "doc", _WORD: "docx",
    "application/vnd.ms-excel": "xls", _SHEET: "xlsx", "text/html": "html", "text/plain": "txt",
    "text/markdown": "md",
}  # fmt: skip
# Bedrock permits only these characters in names, and no consecutive spaces.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9()\[\]-]+")
_LONGEST_NAME, _LONGEST_ID = 200, 64
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_.:-]")


def conversation(source: list[messages.Message]) -> list[dict[str, Any]]:
    """Return the messages. Consecutive messages of one role become one, as Converse requires."""
    made: list[dict[str, Any]] = []
    for message in source:
        role = message.role
        if role not in ("user", "assistant"):
            raise unsupported(f"a message of the role '{role[:64]}'", CONVERSE_API)
        content = _blocks(message.content)
        if not content:
            continue
        if made and made[-1]["role"] == role:
            made[-1]["content"] += content
        else:
            made.append({"role": role, "content": content})
    return made


def system_blocks(system: str | list[messages.Block] | None) -> list[dict[str, Any]]:
    """Return the blocks of the system prompt."""
    if isinstance(system, list):
        for block in system:
            if block.type != "text":
                raise unsupported(f"a block of the type '{block.type[:64]}'", CONVERSE_API)
    return _blocks(system)


def uses_tools(source: list[messages.Message]) -> bool:
    """Return whether the conversation contains tool calls or their results."""
    return any(
        block.type in ("tool_use", "tool_result")
        for message in source
        if isinstance(message.content, list)
        for block in message.content
    )


def cache_point(cache_control: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the block that ends a cached prefix; none without `cache_control`."""
    if not cache_control:
        return []
    ttl = cache_control.get("ttl")
    point = {"type": "default"} | ({"ttl": ttl} if ttl in ("5m", "1h") else {})
    return [{"cachePoint": point}]


def has_long_cache(request: dict[str, Any]) -> bool:
    """Return whether a request for the provider caches a prefix for one hour."""
    tools = request.get("toolConfig", {}).get("tools", [])
    contents = [each["content"] for each in request["messages"]]
    blocks = chain(request.get("system", []), tools, *contents)
    return any(block.get("cachePoint", {}).get("ttl") == "1h" for block in blocks)


def _blocks(content: str | list[messages.Block] | None) -> list[dict[str, Any]]:
    """Return the blocks. Empty texts are left out, because Bedrock refuses them."""
    if not content:
        return []
    if isinstance(content, str):
        return [{"text": content}]
    made: list[dict[str, Any]] = []
    for block in content:
        if (translated := _block(block)) is not None:
            made += [translated, *cache_point(block.cache_control)]
    return made


def _block(block: messages.Block) -> dict[str, Any] | None:
    if block.type == "text":
        return {"text": block.text} if block.text else None
    if block.type == "tool_use":
        call = {"toolUseId": _id(block.id), "name": block.name or "", "input": block.input or {}}
        return {"toolUse": call}
    if block.type == "tool_result":
        return {"toolResult": _result(block)}
    if block.type in ("thinking", "redacted_thinking"):
        return _thinking(block)
    return _medium(block)


def _thinking(block: messages.Block) -> dict[str, Any] | None:
    """Return the reasoning. Without a signature of this provider it is left out."""
    if block.type == "redacted_thinking":
        return {"reasoningContent": {"redactedContent": block.data}} if block.data else None
    signature = block.signature or ""
    if not signature or signature.startswith(gemini.SIGNATURE):
        return None
    text = {"text": block.thinking or "", "signature": signature}
    return {"reasoningContent": {"reasoningText": text}}


def _result(block: messages.Block) -> dict[str, Any]:
    made: dict[str, Any] = {"toolUseId": _id(block.tool_use_id), "content": []}
    if isinstance(block.content, dict):
        raise unsupported("a 'tool_result' whose content is an object", CONVERSE_API)
    for each in _blocks(block.content):
        if not {"text", "image", "document"} & each.keys():
            if "cachePoint" in each:
                continue
            raise unsupported("such a block in a 'tool_result'", CONVERSE_API)
        made["content"].append(each)
    if not made["content"]:
        made["content"] = [{"text": "(empty)"}]  # Bedrock refuses results without content
    if block.is_error:
        made["status"] = "error"
    return made


def _id(call_id: str | None) -> str:
    if not call_id:
        raise InvalidError("A tool call or its result has no id. Add it.")
    return _NOT_IN_IDS.sub("_", call_id)[-_LONGEST_ID:]


def _medium(block: messages.Block) -> dict[str, Any]:
    source = block.source
    if block.type == "search_result" and isinstance(block.content, list):
        head = f"{block.title or ''}\n{source if isinstance(source, str) else ''}"
        return {"text": "\n".join([head, *(each.text or "" for each in block.content)])}
    if block.type not in ("image", "document") or not isinstance(source, messages.Source):
        raise unsupported(f"a block of the type '{block.type[:64]}' in a message", CONVERSE_API)
    if block.type == "document" and source.type == "text":
        data = b64encode((source.data or "").encode()).decode()
        return _document(block, "txt", data)
    if source.type != "base64" or not source.data or not source.media_type:
        what = f"an {block.type}" if block.type == "image" else f"a {block.type}"
        raise unsupported(
            f"{what} with a source of the type '{source.type[:64]}'", CONVERSE_API, "Send its data"
        )
    formats = _IMAGES if block.type == "image" else _DOCUMENTS
    if (form := formats.get(source.media_type.lower())) is None:
        raise unsupported(f"data of the type '{source.media_type[:64]}'", CONVERSE_API)
    if block.type == "image":
        return {"image": {"format": form, "source": {"bytes": source.data}}}
    return _document(block, form, source.data)


def _document(block: messages.Block, form: str, data: str) -> dict[str, Any]:
    name = _NOT_IN_NAMES.sub(" ", block.title or "").strip()[:_LONGEST_NAME]
    return {"document": {"format": form, "name": name or "document", "source": {"bytes": data}}}
