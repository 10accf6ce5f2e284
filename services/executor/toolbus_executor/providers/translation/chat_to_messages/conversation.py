"""Translation of the messages of the chat completions API to those of the messages API."""

import re
from typing import Any

from toolbus_common.errors import InvalidError
from toolbus_executor.providers.translation.apis import chat, gemini, messages
from toolbus_executor.providers.translation.body import (
    MESSAGES_API,
    arguments_of,
    data_url,
    read,
    unsupported,
)

_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")  # the messages API refuses other characters


def conversation(
    source: list[chat.Message],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the blocks of the system prompt, and the other messages.

    Messages of the roles `system` and `developer` become the system prompt, in their order,
    wherever they are. Consecutive tool results and user messages become one message, as the
    messages API requires.
    """
    system: list[dict[str, Any]] = []
    made: list[dict[str, Any]] = []
    for message in source:
        if message.role in ("system", "developer"):
            system += _blocks(message.content)
        elif message.role == "assistant":
            _append(made, "assistant", _assistant(message))
        elif message.role == "tool":
            _append(made, "user", [_result(message)])
        elif message.role == "user":
            _append(made, "user", _blocks(message.content))
        else:
            raise unsupported(f"a message of the role '{message.role[:64]}'", MESSAGES_API)
    return system, made


def _append(made: list[dict[str, Any]], role: str, blocks: list[dict[str, Any]]) -> None:
    """Add the blocks to the last message if it has the same role."""
    if not blocks:
        return
    if made and made[-1]["role"] == role:
        made[-1]["content"] += blocks
    else:
        made.append({"role": role, "content": blocks})


def _assistant(message: chat.Message) -> list[dict[str, Any]]:
    """Return the blocks of a message of the model.

    Reasoning without a signature of this provider is dropped, because the provider refuses it.
    """
    if message.function_call is not None:
        raise unsupported("'function_call'", MESSAGES_API, "Use 'tool_calls'")
    if message.audio is not None:
        raise unsupported("'audio' in a message", MESSAGES_API)
    made = [b for each in message.thinking_blocks or () if (b := _thinking(each))]
    made += _blocks(message.content)
    if message.refusal:
        made.append({"type": "text", "text": message.refusal})
    for call in message.tool_calls or ():
        if call.function is None or not call.function.name or not call.id:
            raise unsupported("a tool call without an id or a function", MESSAGES_API)
        made.append(
            {
                "type": "tool_use",
                "id": _id(call.id),
                "name": call.function.name,
                "input": arguments_of(call.function.arguments, call.function.name, InvalidError),
            }
        )
    return made


def _thinking(value: dict[str, Any]) -> dict[str, Any] | None:
    block = read(value, messages.Block)
    foreign = (block.signature or "").startswith(gemini.SIGNATURE)
    if block.type == "thinking" and block.signature and not foreign:
        thinking = block.thinking or ""
        return {"type": "thinking", "thinking": thinking, "signature": block.signature}
    if block.type == "redacted_thinking" and block.data:
        return {"type": "redacted_thinking", "data": block.data}
    return None


def _result(message: chat.Message) -> dict[str, Any]:
    if not message.tool_call_id:
        raise InvalidError("A message of the role 'tool' has no 'tool_call_id'. Add it.")
    content = message.content if isinstance(message.content, str) else _blocks(message.content)
    return {"type": "tool_result", "tool_use_id": _id(message.tool_call_id), "content": content}


def _id(call_id: str) -> str:
    return _NOT_IN_IDS.sub("_", call_id)


def _blocks(content: str | list[chat.Part] | None) -> list[dict[str, Any]]:
    """Return the content blocks. The messages API refuses empty texts, so they are left out."""
    if content is None:
        return []
    parts = [chat.Part("text", text=content)] if isinstance(content, str) else content
    return [block for part in parts if (block := _block(part)) is not None]


def _block(part: chat.Part) -> dict[str, Any] | None:
    if part.type in ("text", "refusal"):
        text = part.text or part.refusal
        return {"type": "text", "text": text} if text else None
    if part.type == "image_url" and part.image_url:
        return {"type": "image", "source": _source(part.image_url.url)}
    if part.type == "file" and part.file and part.file.file_data:
        made = {"type": "document", "source": _source(part.file.file_data)}
        return made | ({"title": part.file.filename} if part.file.filename else {})
    raise unsupported(f"a content part of the type '{part.type[:64]}'", MESSAGES_API)


def _source(url: str) -> dict[str, Any]:
    if (parsed := data_url(url)) is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": parsed[0], "data": parsed[1]}
