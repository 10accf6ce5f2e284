"""Conversion of a sampling request to a request of the chat API, and of the answer (no I/O)."""

import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

from toolbus_common.config import Sampling
from toolbus_common.errors import InvalidError, UpstreamInvalidError

MAX_STOPS, MAX_TOOLS, MAX_TEMPERATURE = 16, 128, 2.0
_IMAGE = re.compile(r"image/[A-Za-z0-9.+-]{1,64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
_STOP_REASONS = {"stop": "endTurn", "length": "maxTokens", "tool_calls": "toolUse"}


class _Text(Struct, tag="text"):
    text: str


class _Image(Struct, tag="image", rename="camel"):
    data: str
    mime_type: str


class _Audio(Struct, tag="audio", rename="camel"):
    data: str
    mime_type: str


class _ToolUse(Struct, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


class _ToolResult(Struct, tag="tool_result", rename="camel"):
    tool_use_id: str
    content: list[dict[str, Any]] = []
    structured_content: Any = None


_Block = _Text | _Image | _Audio | _ToolUse | _ToolResult


class _Message(Struct):
    role: Literal["user", "assistant"]
    content: _Block | list[_Block]

    @property
    def blocks(self) -> list[_Block]:
        """The content as a list."""
        return self.content if isinstance(self.content, list) else [self.content]


class _Tool(Struct, rename="camel"):
    name: str
    description: str = ""
    input_schema: dict[str, Any] = {}


class _ToolChoice(Struct):
    mode: Literal["auto", "required", "none"] = "auto"


class _Params(Struct, rename="camel"):
    """The params of `sampling/createMessage`.

    `modelPreferences`, `includeContext` and `metadata` are ignored: the operator selects the model,
    and no context of other servers is added.
    """

    messages: list[_Message]
    max_tokens: int
    system_prompt: str | None = None
    temperature: float | None = None
    stop_sequences: list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None


class ChatRequest(Struct, frozen=True):
    """The members of a chat request except the model and the limit of output tokens."""

    members: dict[str, Any]
    max_tokens: int
    tools: int

    def encode(self, model: str, limit_field: str) -> bytes:
        """Return the body of the request."""
        return msgspec.json.encode({"model": model, **self.members, limit_field: self.max_tokens})


def chat_request(params: Any, limits: Sampling) -> ChatRequest:
    """Return the chat request for the params of a sampling request.

    Raises:
        InvalidError: the params are malformed, exceed a limit, or cannot be expressed.

    """
    try:
        found = msgspec.convert(params, _Params)
    except msgspec.ValidationError as error:
        raise InvalidError(f"The sampling request is not valid: {error}. Correct it.") from error
    if not found.messages or found.max_tokens < 1:
        raise InvalidError("A sampling request needs messages and a maxTokens of at least 1.")
    members: dict[str, Any] = {"messages": _messages(found)}
    if found.temperature is not None:
        if not 0 <= found.temperature <= MAX_TEMPERATURE:
            raise InvalidError(f"temperature must be from 0 to {MAX_TEMPERATURE:g}.")
        members["temperature"] = found.temperature
    if found.stop_sequences:
        if len(found.stop_sequences) > MAX_STOPS:
            raise InvalidError(f"stopSequences can have at most {MAX_STOPS} entries.")
        members["stop"] = found.stop_sequences
    if found.tools:
        members |= _tools(found.tools, found.tool_choice, limits)
    return ChatRequest(members, min(found.max_tokens, limits.max_tokens), len(found.tools or ()))


def sampling_result(body: bytes, model: str) -> dict[str, Any]:
    """Return the result of a sampling request for the body of a chat response.

    Raises:
        UpstreamInvalidError: the body is not a chat response with a choice.

    """
    try:
        response = msgspec.json.decode(body)
        choice = response["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        content = [_tool_use(each) for each in message.get("tool_calls") or ()]
        text = message.get("content") or ""
        if not isinstance(text, str):
            text = "".join(part.get("text", "") for part in text)
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UpstreamInvalidError("The model's response is not a chat completion.") from error
    own = {"type": "text", "text": text}
    reported = response.get("model")
    return {
        "role": "assistant",
        "content": ([own] if text else []) + content if content else own,
        "model": reported if isinstance(reported, str) and reported else model,
        "stopReason": _STOP_REASONS.get(finish, finish) if isinstance(finish, str) else "endTurn",
    }


# -- the conversation ------------------------------------------------------------------------------


def _messages(params: _Params) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": params.system_prompt}] if params.system_prompt else []
    found: list[dict[str, Any]] = list(system)
    for message in params.messages:
        found += _assistant(message) if message.role == "assistant" else _user(message)
    return found


def _user(message: _Message) -> list[dict[str, Any]]:
    blocks = message.blocks
    results = [each for each in blocks if isinstance(each, _ToolResult)]
    if results:
        if len(results) < len(blocks):
            raise InvalidError("A message with tool results can have no other content.")
        return [
            {"role": "tool", "tool_call_id": each.tool_use_id, "content": _result_text(each)}
            for each in results
        ]
    if len(blocks) == 1 and isinstance(blocks[0], _Text):
        return [{"role": "user", "content": blocks[0].text}]
    return [{"role": "user", "content": [_part(each) for each in blocks]}]


def _assistant(message: _Message) -> list[dict[str, Any]]:
    texts = [each.text for each in message.blocks if isinstance(each, _Text)]
    calls = [
        {
            "id": each.id,
            "type": "function",
            "function": {"name": each.name, "arguments": msgspec.json.encode(each.input).decode()},
        }
        for each in message.blocks
        if isinstance(each, _ToolUse)
    ]
    if len(texts) + len(calls) < len(message.blocks):
        raise InvalidError("An assistant message can only have text and tool uses.")
    found: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None}
    return [found | {"tool_calls": calls} if calls else found]


def _part(block: _Block) -> dict[str, Any]:
    if isinstance(block, _Text):
        return {"type": "text", "text": block.text}
    if isinstance(block, _Image) and _IMAGE.fullmatch(block.mime_type) and _is_base64(block.data):
        url = f"data:{block.mime_type};base64,{block.data}"
        return {"type": "image_url", "image_url": {"url": url}}
    if isinstance(block, _Audio) and block.mime_type in _AUDIO and _is_base64(block.data):
        audio = {"data": block.data, "format": _AUDIO[block.mime_type]}
        return {"type": "input_audio", "input_audio": audio}
    raise InvalidError(
        "A user message can have text, images, audio (WAV or MP3) and tool results; images and "
        "audio need a media type and base64."
    )


def _is_base64(data: str) -> bool:
    return _BASE64.fullmatch(data) is not None


def _result_text(result: _ToolResult) -> str:
    texts = [each.get("text") for each in result.content if each.get("type") == "text"]
    if len(texts) < len(result.content) or not all(isinstance(each, str) for each in texts):
        raise InvalidError("A tool result can only have text content.")
    if not texts and result.structured_content is not None:
        return msgspec.json.encode(result.structured_content).decode()
    return "\n".join(str(each) for each in texts)


# -- tools -----------------------------------------------------------------------------------------


def _tools(tools: list[_Tool], choice: _ToolChoice | None, limits: Sampling) -> dict[str, Any]:
    if not limits.tools:
        raise InvalidError(
            "This gateway does not let the server offer tools in sampling requests. Send the "
            "request without tools."
        )
    if len(tools) > MAX_TOOLS:
        raise InvalidError(f"A sampling request can offer at most {MAX_TOOLS} tools.")
    functions = [
        {
            "type": "function",
            "function": {
                "name": each.name,
                "description": each.description,
                "parameters": each.input_schema or {"type": "object"},
            },
        }
        for each in tools
    ]
    return {"tools": functions, "tool_choice": choice.mode if choice else "auto"}


def _tool_use(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = msgspec.json.decode(function.get("arguments") or "{}", type=dict[str, Any])
    return {
        "type": "tool_use",
        "id": str(call["id"]),
        "name": str(function["name"]),
        "input": arguments,
    }
