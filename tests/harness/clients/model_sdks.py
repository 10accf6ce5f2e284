"""The types and the stream accumulators of the official SDKs of model providers."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

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


__all__ = ["CHAT", "MESSAGES", "RESPONSES", "accumulated", "check_request", "check_response"]
