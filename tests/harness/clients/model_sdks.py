"""The types and the stream accumulators of the official SDKs of model providers."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import anthropic
import openai
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, MessageCreateParams, RawMessageStreamEvent
from openai import omit
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParams
from pydantic import TypeAdapter

CHAT, RESPONSES, MESSAGES = "models/chat", "models/responses", "models/messages"
_REQUESTS: dict[str, TypeAdapter[Any]] = {
    CHAT: TypeAdapter(CompletionCreateParamsStreaming | CompletionCreateParamsNonStreaming),
    RESPONSES: TypeAdapter(ResponseCreateParams),
    MESSAGES: TypeAdapter(MessageCreateParams),
}
_RESPONSES: dict[str, Any] = {CHAT: ChatCompletion, RESPONSES: Response, MESSAGES: Message}
_MESSAGE_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
_RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

# What applications without an SDK send, apart from the model, the messages and the stream.
APPLICATIONS: dict[str, dict[str, Any]] = {
    "Open WebUI": {"stream_options": {"include_usage": True}, "max_tokens": 64},
    "Cursor": {
        "stream_options": {"include_usage": True},
        "temperature": 0.1,
        "user": "auth|user_1",
        "tools": [{"type": "function", "function": {"name": "read", "parameters": {}}}],
        "tool_choice": "auto",
    },
}


def check_request(method: str, body: dict[str, Any]) -> None:
    """Raise `ValidationError` unless the body matches the SDK's type of a request."""
    _exhaust(_REQUESTS[method].validate_python(body))


def _exhaust(value: Any) -> None:
    """Validate nested iterables, which pydantic validates when they are read."""
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for each in value:
            _exhaust(each)


def check_response(method: str, body: dict[str, Any]) -> None:
    """Raise `ValidationError` unless the body matches the SDK's type of a response."""
    _RESPONSES[method].model_validate(body)


def payloads(stream: bytes) -> Iterator[dict[str, Any]]:
    """Yield the data of each event; the end `[DONE]` is left out."""
    for part in stream.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in part.split("\n") if line)
        if lines and lines["data"] != "[DONE]":
            payload = json.loads(lines["data"])
            assert lines.get("event", payload.get("type")) == payload.get("type")
            yield payload


def accumulated(method: str, stream: bytes) -> dict[str, Any]:
    """Return the response that the SDK's accumulator makes of a stream, validating each event."""
    return {CHAT: _chat, RESPONSES: _responses, MESSAGES: _messages}[method](stream)


def _chat(stream: bytes) -> dict[str, Any]:
    state: Any = ChatCompletionStreamState()
    for payload in payloads(stream):
        state.handle_chunk(ChatCompletionChunk.model_validate(payload))
    made: dict[str, Any] = state.current_completion_snapshot.model_dump(warnings=False)
    return made


def _messages(stream: bytes) -> dict[str, Any]:
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for payload in payloads(stream):
        event = _MESSAGE_EVENT.validate_python(payload)
        snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    made: dict[str, Any] = snapshot.model_dump(warnings=False, exclude_none=True)
    return made


def _responses(stream: bytes) -> dict[str, Any]:
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    last: Any = None
    for number, payload in enumerate(payloads(stream)):
        assert payload["sequence_number"] == number
        last = _RESPONSE_EVENT.validate_python(payload)
        state.handle_event(last)
    made: dict[str, Any] = last.response.model_dump(warnings=False)
    return made


def one_of_many(gpt: openai.OpenAI, claude: anthropic.Anthropic, number: int) -> None:
    """Send a request whose kind and size depend on its number, and check the response."""
    text, more = f"n{number}", {"mock": f"chunks={1 + number % 7},cached=1"}
    prompt: list[Any] = [{"role": "user", "content": text}]
    wanted = f"{text} " + "".join(f"w{each} " for each in range(1, 1 + number % 7))
    match number % 8:
        case 0:
            chat = gpt.chat.completions.create(model="team-fast", messages=prompt, extra_body=more)
            assert chat.choices[0].message.content == wanted
        case 1:
            chunks = gpt.chat.completions.create(
                model="team-fast", messages=prompt, stream=True, extra_body=more
            )
            parts = [each.choices[0].delta.content or "" for each in chunks if each.choices]
            assert "".join(parts) == wanted
        case 2:
            response = gpt.responses.create(model="spare/mock", input=text, extra_body=more)
            assert response.output_text == wanted
        case 3:
            with gpt.responses.create(
                model="mock/mock", input=text, stream=True, extra_body=more
            ) as events:
                deltas = [
                    each.delta for each in events if each.type == "response.output_text.delta"
                ]
            assert "".join(deltas) == wanted
        case 4:
            message = claude.messages.create(
                model="claude/mock", max_tokens=9, messages=prompt, extra_body=more
            )
            assert [each.text for each in message.content if each.type == "text"] == [wanted]
        case 5:
            raw = claude.messages.create(
                model="claude/mock", max_tokens=9, messages=prompt, stream=True, extra_body=more
            )
            text_parts = [
                each.delta.text
                for each in raw
                if each.type == "content_block_delta" and each.delta.type == "text_delta"
            ]
            assert "".join(text_parts) == wanted
        case 6:
            assert gpt.embeddings.create(model="mock/mock", input=text).data
        case _:
            shaky = gpt.chat.completions.create(model="shaky", messages=prompt)
            assert shaky.choices[0].message.content == f"{text} w1 w2 w3 w4 "


__all__ = [
    "CHAT",
    "MESSAGES",
    "RESPONSES",
    "accumulated",
    "check_request",
    "check_response",
    "one_of_many",
]
