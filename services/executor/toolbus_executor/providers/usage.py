"""Usage, finish reason and suggested tool calls, as the responses of each API report them (no I/O).

A provider's numbers are not trusted: each count is limited, and the parts of a sum never exceed it.
"""

import re
from math import ceil
from typing import Any

import msgspec
from msgspec import Struct

from toolbus_common.contracts.model_calls import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    Usage,
)

MAX_TOKENS = 10_000_000  # per request and kind
MAX_REASON = 64  # characters of a finish reason
BYTES_PER_TOKEN = 4  # an estimate for English prose
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_CALL_TYPES = ("function_call", "custom_tool_call", "tool_use")
_STRING = rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)'

# The texts of a response. A name before an escaped quote is not matched: it is a part of a text.
_TEXTS = {
    CHAT: re.compile(
        rb'"(?:content|reasoning_content|reasoning|refusal|arguments)":\s*+' + _STRING
    ),
    RESPONSES: re.compile(rb'"(?:delta|text|arguments)":\s*+' + _STRING),
    MESSAGES: re.compile(rb'"(?:text|partial_json|thinking)":\s*+' + _STRING),
}
# The last events of a stream of the responses API repeat all texts, so only deltas are counted.
_DELTAS = _TEXTS | {RESPONSES: re.compile(rb'"delta":\s*+' + _STRING)}
# Patterns of events that are decoded; all other events have no usage.
_SIGNS = {
    CHAT: re.compile(rb'"usage":\s*+\{|"finish_reason":\s*+"|"tool_calls":\s*+\[|data: ?\[DONE\]'),
    RESPONSES: re.compile(rb'"response\.(?:completed|incomplete|failed|output_item\.added)"'),
    MESSAGES: re.compile(rb'"message_(?:start|delta|stop)"|"tool_use"'),
}


class _Function(Struct):
    name: str | None = None


class _ToolCall(Struct):
    function: _Function | None = None


class _Message(Struct):
    tool_calls: list[_ToolCall] | None = None


class _Choice(Struct):
    finish_reason: str | None = None
    message: _Message | None = None
    delta: _Message | None = None


class _Typed(Struct):
    type: str = ""


class _Stop(Struct):
    stop_reason: str | None = None


class _Start(Struct):
    usage: Any = None


class _Chat(Struct):
    """A response of chat completions or of embeddings, or an event of its stream."""

    usage: Any = None
    choices: list[_Choice] | None = None


class _Response(Struct):
    """A response of the responses API."""

    usage: Any = None
    status: str | None = None
    incomplete_details: Any = None
    output: list[_Typed] | None = None


class _ResponseEvent(Struct):
    type: str = ""
    response: _Response | None = None
    item: _Typed | None = None


class _Answer(Struct):
    """A response of the messages API."""

    usage: Any = None
    stop_reason: str | None = None
    content: list[_Typed] | None = None


class _AnswerEvent(Struct):
    type: str = ""
    usage: Any = None
    message: _Start | None = None
    delta: _Stop | None = None
    content_block: _Typed | None = None


_chat = msgspec.json.Decoder(_Chat).decode
_response = msgspec.json.Decoder(_Response).decode
_response_event = msgspec.json.Decoder(_ResponseEvent).decode
_answer = msgspec.json.Decoder(_Answer).decode
_answer_event = msgspec.json.Decoder(_AnswerEvent).decode
_only_usage = msgspec.json.Decoder(_Start).decode


class Response(Struct, frozen=True, array_like=True):
    """A complete response in the form of the client's API; with `streamed`, its event stream."""

    body: bytes
    streamed: bool
    usage: Usage
    finish_reason: str = ""
    tools: int = 0


class Facts(Struct):
    """What the gateway reads in a response: its usage, its finish reason and its tool calls.

    `usage` is None if the provider reported none.
    """

    usage: Usage | None = None
    finish_reason: str = ""
    tools: int = 0


def count_of(value: Any) -> int:
    """Return a reported number of tokens, between 0 and `MAX_TOKENS`. Other values count as 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return 0
    return int(min(value, MAX_TOKENS))


def usage_of(method: str, reported: Any) -> Usage | None:
    """Return the usage of a reported `usage` object; None if it contains no number of tokens."""
    if not isinstance(reported, dict):
        return None
    hour = audio = image = spoken = 0
    if method == MESSAGES:
        hour = _detail(reported, "cache_creation", "ephemeral_1h_input_tokens")
        read = count_of(reported.get("cache_read_input_tokens"))
        written = max(count_of(reported.get("cache_creation_input_tokens")), hour)
        fields = count_of(reported.get("input_tokens")) + read + written, read, written
        output = count_of(reported.get("output_tokens"))
        reasoning = _detail(reported, "output_tokens_details", "thinking_tokens")
    else:
        names = ("input", "output") if method == RESPONSES else ("prompt", "completion")
        given, made = (count_of(reported.get(f"{name}_tokens")) for name in names)
        read_in, read_out = (f"{name}_tokens_details" for name in names)
        fields = given, _detail(reported, read_in, "cached_tokens"), 0
        output, reasoning = made, _detail(reported, read_out, "reasoning_tokens")
        audio = _detail(reported, read_in, "audio_tokens")
        image = _detail(reported, read_in, "image_tokens")
        spoken = _detail(reported, read_out, "audio_tokens")
    if not (fields[0] or output):
        return None
    return Usage(
        input=fields[0],
        cached=(cached := min(fields[1], fields[0])),
        cache_write=(written := min(fields[2], fields[0] - cached)),
        output=output,
        reasoning=(reasoned := min(reasoning, output)),
        cache_write_1h=min(hour, written),
        audio_input=(sound := min(audio, fields[0] - cached - written)),
        image_input=min(image, fields[0] - cached - written - sound),
        audio_output=min(spoken, output - reasoned),
    )


def estimated_usage(
    request_bytes: int, chunks: int, text_bytes: int, known: Usage | None = None
) -> Usage:
    """Return the estimate for a response without a complete usage. `known` are reported parts."""
    output = max(chunks, ceil(text_bytes / BYTES_PER_TOKEN))
    if known is None:
        return Usage(input=ceil(request_bytes / BYTES_PER_TOKEN), output=output, estimated=True)
    reported = known.input or ceil(request_bytes / BYTES_PER_TOKEN)
    return msgspec.structs.replace(
        known, input=reported, output=max(output, known.output), estimated=True
    )


def facts_of(method: str, body: bytes) -> Facts:
    """Return the facts of a complete response.

    A member with an unexpected type is ignored. Raises `ValueError` if the body is no JSON object.
    """
    try:
        if method == COUNT_TOKENS:
            _only_usage(body)
            return Facts(Usage())
        if method in (CHAT, EMBEDDINGS):
            return _chat_facts(method, _chat(body))
        if method == RESPONSES:
            return _response_facts(_response(body))
        answer = _answer(body)
        tools = _count_calls(answer.content)
        return Facts(usage_of(method, answer.usage), _reason(answer.stop_reason), tools)
    except msgspec.ValidationError:
        pass
    except UNREADABLE as error:
        raise ValueError(str(error)) from error
    try:
        return Facts(usage_of(method, _only_usage(body).usage))
    except UNREADABLE as error:
        raise ValueError(str(error)) from error


def usage_or_estimate(method: str, facts: Facts, request_bytes: int, body: bytes) -> Usage:
    """Return the usage of a complete response. It is estimated if the provider reported none."""
    if facts.usage is not None:
        return facts.usage
    texts = _TEXTS[method].findall(body) if method in _TEXTS else []
    return estimated_usage(request_bytes, 0, sum(map(len, texts)))


class StreamFacts:
    """The facts of a streamed response, from complete events in any number of parts.

    Only events that can contain facts are decoded. In all others the texts are counted, to estimate
    the usage of a stream that ends early.
    """

    def __init__(self, method: str, request_bytes: int) -> None:
        self._method = method
        self._request_bytes = request_bytes
        self._texts = _DELTAS[method].findall
        self._sign = _SIGNS[method].search
        self._chunks = self._text_bytes = 0
        self._is_final = False  # the usage is complete
        self.facts = Facts()
        self.complete = False  # the last event was received

    def feed(self, part: bytes) -> bool:
        """Read complete events. Return whether they can contain usage."""
        for text in self._texts(part):
            if text:
                self._chunks += 1
                self._text_bytes += len(text)
        if self._sign(part) is None:
            return False
        for line in part.splitlines():
            if line.startswith(b"data:"):
                self._read(line[5:].strip())
        return True

    @property
    def usage(self) -> Usage:
        """The reported usage; the estimate as long as the provider has not reported all of it."""
        known = self.facts.usage
        if known is not None and self._is_final:
            return known
        return estimated_usage(self._request_bytes, self._chunks, self._text_bytes, known)

    def _read(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.complete = True
            return
        try:
            if self._method == CHAT:
                self._note(_chat_facts(CHAT, _chat(data)), is_final=True)
            elif self._method == RESPONSES:
                self._read_response_event(_response_event(data))
            else:
                self._read_answer_event(_answer_event(data))
        except UNREADABLE:
            pass  # the client receives the event unchanged; the usage is estimated

    def _read_response_event(self, event: _ResponseEvent) -> None:
        if event.type == "response.output_item.added":
            self.facts.tools += _count_calls([event.item] if event.item is not None else None)
        elif event.response is not None and event.type.startswith("response."):
            facts = _response_facts(event.response)
            facts.tools = max(0, facts.tools - self.facts.tools)
            self._note(facts, is_final=True)
            self.complete = event.type in _LAST

    def _read_answer_event(self, event: _AnswerEvent) -> None:
        if event.type == "message_start" and event.message is not None:
            self._note(Facts(usage_of(MESSAGES, event.message.usage)), is_final=False)
        elif event.type == "message_delta":
            reason = _reason(event.delta.stop_reason if event.delta is not None else None)
            self._note(Facts(usage_of(MESSAGES, event.usage), reason), is_final=True)
        elif event.type == "content_block_start":
            block = event.content_block
            self.facts.tools += _count_calls([block] if block is not None else None)
        elif event.type == "message_stop":
            self.complete = True

    def _note(self, found: Facts, *, is_final: bool) -> None:
        facts = self.facts
        facts.finish_reason = found.finish_reason or facts.finish_reason
        facts.tools += found.tools
        if found.usage is not None:
            facts.usage = _larger(facts.usage or Usage(), found.usage)
            self._is_final = self._is_final or is_final


_LAST = ("response.completed", "response.incomplete", "response.failed")


def is_usage_only(data: bytes) -> bool:
    """Return whether an event of a chat stream contains the usage and no choice."""
    try:
        event = _chat(data)
    except UNREADABLE:
        return False
    return isinstance(event.usage, dict) and not event.choices


def _larger(one: Usage, other: Usage) -> Usage:
    """Return the larger number of each kind. The events of a stream report growing numbers."""
    cached, written = max(one.cached, other.cached), max(one.cache_write, other.cache_write)
    given = max(one.input, other.input, cached + written)
    output, reasoning = max(one.output, other.output), max(one.reasoning, other.reasoning)
    # An earlier event can count tokens as audio that a later one counts as cached: not twice.
    fresh = given - cached - written
    return Usage(
        input=given,
        cached=cached,
        cache_write=written,
        output=output,
        reasoning=reasoning,
        cache_write_1h=max(one.cache_write_1h, other.cache_write_1h),
        audio_input=(audio := min(max(one.audio_input, other.audio_input), fresh)),
        image_input=min(max(one.image_input, other.image_input), fresh - audio),
        audio_output=min(max(one.audio_output, other.audio_output), output - reasoning),
    )


def _detail(reported: dict[str, Any], member: str, name: str) -> int:
    details = reported.get(member)
    return count_of(details.get(name)) if isinstance(details, dict) else 0


def _chat_facts(method: str, chat: _Chat) -> Facts:
    facts = Facts(usage_of(method, chat.usage))
    for choice in chat.choices or ():
        facts.finish_reason = _reason(choice.finish_reason) or facts.finish_reason
        message = choice.message or choice.delta
        for call in (message.tool_calls if message is not None else None) or ():
            # Later parts of a streamed tool call have no name.
            facts.tools += 1 if call.function is not None and call.function.name else 0
    return facts


def _response_facts(response: _Response) -> Facts:
    details = response.incomplete_details
    reason = details.get("reason") if isinstance(details, dict) else None
    return Facts(
        usage_of(RESPONSES, response.usage),
        _reason(reason if isinstance(reason, str) else response.status),
        _count_calls(response.output),
    )


def _count_calls(items: list[_Typed] | None) -> int:
    return sum(item.type in _CALL_TYPES for item in items or ())


def _reason(text: str | None) -> str:
    """Return a finish reason for events; empty if it is no plain word."""
    return text[:MAX_REASON] if text and text.isascii() and text.isprintable() else ""
