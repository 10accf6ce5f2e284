"""Translation of the input items of the responses API to messages."""

from typing import Any

from toolbus_common.errors import InvalidError
from toolbus_executor.providers.translation.apis import chat, responses
from toolbus_executor.providers.translation.body import CHAT_API, unsupported
from toolbus_executor.providers.translation.responses_to_chat.namespaces import joined_name

_ROLES = {"user": "user", "system": "system", "developer": "system"}


def conversation(request: responses.Request, *, extended: bool) -> list[dict[str, Any]]:
    """Return the messages. `extended` is that of `chat_request`.

    Consecutive items of the model become one message, because the chat completions API requires
    the results of tools directly after the message with the tool calls.
    """
    made: list[dict[str, Any]] = []
    if request.instructions:
        made.append({"role": "system", "content": request.instructions})
    if isinstance(request.input, str):
        return [*made, {"role": "user", "content": request.input}]
    later: list[dict[str, Any]] = []  # content of tool results for the next user message
    for item in request.input:
        kind = item.type or "message"
        if kind != "function_call_output" and later:
            made.append({"role": "user", "content": later})
            later = []
        if kind == "function_call_output":
            made.append(_output(item, later, extended=extended))
        elif kind == "message" and item.role in _ROLES:
            content = _content(item.content, extended=extended)
            made.append({"role": _ROLES[item.role], "content": content})
        else:
            _add(made, item, kind, extended=extended)
    return [*made, {"role": "user", "content": later}] if later else made


def _add(made: list[dict[str, Any]], item: responses.Item, kind: str, *, extended: bool) -> None:
    """Add an item of the model. Reasoning is dropped unless it carries a thinking block."""
    if kind == "reasoning":
        block = responses.thinking_block(item) if extended else None
        if block is not None:
            _assistant(made).setdefault("thinking_blocks", []).append(block)
    elif kind == "message" and item.role == "assistant":
        message = _assistant(made)
        message["content"] = (message["content"] or "") + _text(item.content)
    elif kind == "function_call":
        if not item.call_id or not item.name:
            raise InvalidError("An item 'function_call' has no 'call_id' or no 'name'. Add it.")
        call = chat.tool_call(
            item.call_id, joined_name(item.namespace, item.name), item.arguments or "{}"
        )
        _assistant(made).setdefault("tool_calls", []).append(call)
    elif kind == "message":
        raise unsupported(f"a message of the role '{(item.role or '')[:64]}'", CHAT_API)
    else:
        raise unsupported(f"an item of the type '{kind[:64]}'", CHAT_API)


def _assistant(made: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the last message if it is one of the model; otherwise a new one."""
    if not made or made[-1]["role"] != "assistant":
        made.append({"role": "assistant", "content": None})
    return made[-1]


def _output(item: responses.Item, later: list[dict[str, Any]], *, extended: bool) -> dict[str, Any]:
    """Return the result of a tool. Other parts than text are added to `later`."""
    if not item.call_id:
        raise InvalidError("An item 'function_call_output' has no 'call_id'. Add it.")
    content = _content(item.output, extended=extended) if item.output is not None else ""
    if isinstance(content, list) and not extended:
        later.append({"type": "text", "text": f"Content of the tool result '{item.call_id}':"})
        later += [part for part in content if part["type"] != "text"]
        texts = [part["text"] for part in content if part["type"] == "text"]
        content = "\n\n".join(texts) or "The content is in the next message."
    return {"role": "tool", "tool_call_id": item.call_id, "content": content}


def _text(content: str | list[responses.Part] | None) -> str:
    """Return the text of a message of the model."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or part.refusal or "" for part in content)


def _content(
    content: str | list[responses.Part] | None, *, extended: bool
) -> str | list[dict[str, Any]]:
    """Return the content of a message; a text if it has no other parts."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = [_part(part, extended=extended) for part in content]
    if all(part["type"] == "text" for part in parts):
        return "\n\n".join(part["text"] for part in parts)
    return parts


def _part(part: responses.Part, *, extended: bool) -> dict[str, Any]:
    if part.type in ("input_text", "output_text"):
        return {"type": "text", "text": part.text or ""}
    if part.type == "input_image" and part.image_url:
        return {"type": "image_url", "image_url": {"url": part.image_url}}
    if part.type == "input_file" and part.file_data:
        file = {"filename": part.filename or "document.pdf", "file_data": part.file_data}
        return {"type": "file", "file": file}
    if part.type == "input_file" and part.file_url and extended:
        return {"type": "file", "file": {"file_data": part.file_url}}
    raise unsupported(f"a content part of the type '{part.type[:64]}' without its data", CHAT_API)
