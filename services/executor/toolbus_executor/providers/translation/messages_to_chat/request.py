"""Translation of a request of the messages API to the chat completions API."""

from typing import Any

from toolbus_common.errors import InvalidError
from toolbus_executor.providers.translation.apis import chat, messages
from toolbus_executor.providers.translation.body import (
    CHAT_API,
    check_fields,
    encode,
    read,
    unsupported,
)

_LONGEST_USER = 64  # characters of the field `user` that OpenAI accepts
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
# Fields without an effect on the response: caching, accounting, speed, and the removal of old
# thinking blocks and tool results from the prompt, which only saves tokens.
_DROPPED = frozenset(
    ("cache_control", "context_management", "diagnostics", "service_tier", "speed", "betas")
)
_KNOWN = frozenset(messages.Request.__struct_fields__) | _DROPPED
_EXTENSIONS = frozenset({"thinking", "top_k"})


def chat_request(body: dict[str, Any], limit: str, *, extended: bool = False) -> dict[str, Any]:
    """Return the request for the provider. `limit` is its field for the limit of output tokens.

    With `extended`, another translation follows, and the request contains what the chat completions
    API cannot carry: thinking blocks, their configuration, `top_k`, documents by URL, and whole
    tool results.
    """
    check_fields(body, _KNOWN | _EXTENSIONS if extended else _KNOWN, CHAT_API)
    request = read(body, messages.Request)
    made: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(request, extended=extended),
        limit: request.max_tokens,
    }
    for name in ("temperature", "top_p"):
        if (value := getattr(request, name)) is not None:
            made[name] = value
    if request.stop_sequences:
        made["stop"] = request.stop_sequences
    if request.stream:
        made |= {"stream": True, "stream_options": {"include_usage": True}}
    if request.tools:
        made["tools"] = [_tool(each) for each in request.tools]
        made |= _tool_choice(request.tool_choice)
    made |= _output(request)
    if extended:
        made |= {name: body[name] for name in _EXTENSIONS if body.get(name) is not None}
    user = request.metadata.user_id if request.metadata else None
    if user and len(user) <= _LONGEST_USER:
        made["user"] = user
    return made


def _messages(request: messages.Request, *, extended: bool) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    if request.system:
        made.append({"role": "system", "content": _text(request.system)})
    for message in request.messages:
        if isinstance(message.content, str):
            made.append({"role": message.role, "content": message.content})
        elif message.role == "assistant":
            made.append(_assistant(message.content, extended=extended))
        elif message.role == "system":
            made.append({"role": "system", "content": _text(message.content)})
        else:
            made += _user(message.content, extended=extended)
    return made


def _text(content: str | list[messages.Block]) -> str:
    """Return the text of a system prompt."""
    if isinstance(content, str):
        return content
    for block in content:
        if block.type != "text":
            raise unsupported(f"a block of the type '{block.type[:64]}' in 'system'", CHAT_API)
    return "\n\n".join(block.text or "" for block in content)


def _assistant(content: list[messages.Block], *, extended: bool) -> dict[str, Any]:
    """Return a message of the model.

    Thinking blocks are dropped unless the request is `extended`: the chat completions API does not
    accept reasoning in a request.
    """
    texts, calls, thoughts = [], [], []
    for block in content:
        if block.type == "text":
            texts.append(block.text or "")
        elif block.type == "tool_use":
            arguments = encode(block.input or {}, InvalidError).decode()
            calls.append(chat.tool_call(block.id or "", block.name or "", arguments))
        elif block.type == "thinking":
            thinking, signature = block.thinking or "", block.signature or ""
            thoughts.append({"type": block.type, "thinking": thinking, "signature": signature})
        elif block.type != "redacted_thinking":
            raise _unknown(block)
    made: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if extended and thoughts:
        made["thinking_blocks"] = thoughts
    if calls:
        made |= {"content": made["content"] or None, "tool_calls": calls}
    return made


def _user(content: list[messages.Block], *, extended: bool) -> list[dict[str, Any]]:
    """Return the messages of one user message: first the results of tools, then the rest."""
    results, parts = [], []
    for block in content:
        if block.type == "tool_result" and extended:
            results.append(_whole_result(block))
        elif block.type == "tool_result":
            text, others = _result(block)
            results.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": text})
            parts += others
        else:
            parts.append(_part(block, extended=extended))
    if not parts and results:
        return results
    if all(part["type"] == "text" for part in parts):
        return [*results, {"role": "user", "content": "\n\n".join(p["text"] for p in parts)}]
    return [*results, {"role": "user", "content": parts}]


def _whole_result(block: messages.Block) -> dict[str, Any]:
    """Return a tool result with all its parts."""
    if isinstance(block.content, dict):
        raise unsupported("a 'tool_result' whose content is an object", CHAT_API)
    content: Any = block.content or ""
    if isinstance(content, list):
        content = [_part(each, extended=True) for each in content]
    made = {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}
    return made | ({"is_error": True} if block.is_error else {})


def _result(block: messages.Block) -> tuple[str, list[dict[str, Any]]]:
    """Return the text of a tool result, and its other parts.

    A message of the role `tool` can only contain text, so other parts follow in a user message.
    """
    texts, others = [], []
    if isinstance(block.content, list):
        for each in block.content:
            part = _part(each)
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                others.append(part)
    elif isinstance(block.content, str):
        texts.append(block.content)
    elif block.content is not None:
        raise unsupported("a 'tool_result' whose content is an object", CHAT_API)
    text = "\n\n".join(texts)
    if block.is_error and "error" not in text[:32].lower():
        text = f"Error: {text}"
    if others:
        label = f"Content of the tool result '{block.tool_use_id}':"
        others = [{"type": "text", "text": label}, *others]
        text = text or "The content is in the next message."
    return text, others


def _part(block: messages.Block, *, extended: bool = False) -> dict[str, Any]:
    if block.type == "text":
        return {"type": "text", "text": block.text or ""}
    if block.type == "image" and isinstance(block.source, messages.Source):
        return {"type": "image_url", "image_url": {"url": _image(block.source)}}
    if block.type == "document" and isinstance(block.source, messages.Source):
        return _document(block, block.source, extended=extended)
    if block.type == "search_result" and isinstance(block.content, list):
        head = f"{block.title or ''}\n{block.source if isinstance(block.source, str) else ''}"
        texts = [each.text or "" for each in block.content]
        return {"type": "text", "text": "\n".join([head, *texts])}
    raise _unknown(block)


def _image(source: messages.Source) -> str:
    if source.type == "base64" and source.data and source.media_type:
        return f"data:{source.media_type};base64,{source.data}"
    if source.type == "url" and source.url:
        return source.url
    raise unsupported(f"an image with a source of the type '{source.type[:64]}'", CHAT_API)


def _document(block: messages.Block, source: messages.Source, *, extended: bool) -> dict[str, Any]:
    if source.type == "text":
        return {"type": "text", "text": f"{block.title or ''}\n{source.data or ''}".strip()}
    if source.type == "base64" and source.data and source.media_type:
        data = f"data:{source.media_type};base64,{source.data}"
        return {
            "type": "file",
            "file": {"filename": block.title or "document.pdf", "file_data": data},
        }
    if source.type == "url" and source.url and extended:
        return {"type": "file", "file": {"file_data": source.url}}
    raise unsupported(f"a document with a source of the type '{source.type[:64]}'", CHAT_API)


def _unknown(block: messages.Block) -> InvalidError:
    return unsupported(f"a block of the type '{block.type[:64]}' in a message", CHAT_API)


def _tool(tool: messages.Tool) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise unsupported(f"the built-in tool '{tool.type[:64]}'", CHAT_API)
    function: dict[str, Any] = {
        "name": tool.name,
        "parameters": tool.input_schema or {"type": "object", "properties": {}},
    }
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(choice: messages.ToolChoice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    made: dict[str, Any] = {}
    if choice.type == "tool" and choice.name:
        made["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice.type in _CHOICES:
        made["tool_choice"] = _CHOICES[choice.type]
    else:
        raise InvalidError(
            f"The tool choice '{choice.type[:64]}' is unknown. Use auto, any, tool or none."
        )
    if choice.disable_parallel_tool_use:
        made["parallel_tool_calls"] = False
    return made


def _output(request: messages.Request) -> dict[str, Any]:
    """Return the fields for the effort and the form of the response.

    A budget of thinking is a hint, and most models of this API refuse an effort.
    """
    made: dict[str, Any] = {}
    config = request.output_config or messages.OutputConfig()
    if config.effort is not None:
        made["reasoning_effort"] = chat.MAX_EFFORTS.get(config.effort, config.effort)
    if config.format is not None:
        if config.format.type != "json_schema" or config.format.schema is None:
            raise unsupported(f"the output format '{config.format.type[:64]}'", CHAT_API)
        made["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "response", "schema": config.format.schema, "strict": True},
        }
    return made
