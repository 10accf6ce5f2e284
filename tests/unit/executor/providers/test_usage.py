"""Usage, finish reasons and tool calls in responses; hostile values are limited."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.contracts.model_calls import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    Usage,
)
from toolbus_executor.providers.usage import (
    MAX_TOKENS,
    StreamFacts,
    facts_of,
    is_usage_only,
    usage_of,
    usage_or_estimate,
)

METHODS = (CHAT, RESPONSES, MESSAGES, EMBEDDINGS)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
NAMES = st.sampled_from(
    [
        "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens",
        "prompt_tokens_details", "completion_tokens_details", "cache_read_input_tokens",
        "cache_creation_input_tokens", "input_tokens_details", "output_tokens_details",
        "cache_creation",
    ]
)  # fmt: skip
DETAILS = st.dictionaries(
    st.sampled_from(
        [
            "cached_tokens",
            "reasoning_tokens",
            "ephemeral_1h_input_tokens",
            "audio_tokens",
            "image_tokens",
        ]
    ),
    ANY,
)


def sse(*events: Any, named: bool = False) -> bytes:
    return b"".join(
        (b"event: %b\n" % each["type"].encode() if named else b"")
        + b"data: %b\n\n" % json.dumps(each).encode()
        for each in events
    )


CHAT_BODY: dict[str, Any] = {
    "choices": [
        {"finish_reason": "tool_calls",
         "message": {"tool_calls": [{"function": {"name": "a", "arguments": "{}"}},
                                    {"function": {"name": "b", "arguments": "{}"}}]}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5,
              "prompt_tokens_details": {"cached_tokens": 4},
              "completion_tokens_details": {"reasoning_tokens": 3}},
}  # fmt: skip
RESPONSE: dict[str, Any] = {
    "status": "incomplete",
    "incomplete_details": {"reason": "max_output_tokens"},
    "output": [{"type": "reasoning"}, {"type": "message"}, {"type": "function_call"}],
    "usage": {"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 4},
              "output_tokens_details": {"reasoning_tokens": 3}},
}  # fmt: skip
ANSWER: dict[str, Any] = {
    "stop_reason": "tool_use",
    "content": [{"type": "text", "text": "a"}, {"type": "tool_use", "input": {}}],
    "usage": {"input_tokens": 3, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 3,
              "output_tokens": 5},
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "body", "usage", "reason", "tools"),
    [
        (CHAT, CHAT_BODY, Usage(10, 4, 0, 5, 3), "tool_calls", 2),
        (RESPONSES, RESPONSE, Usage(10, 4, 0, 5, 3), "max_output_tokens", 1),
        (MESSAGES, ANSWER, Usage(10, 4, 3, 5, 0), "tool_use", 1),
        (EMBEDDINGS, {"data": [], "usage": {"prompt_tokens": 8}}, Usage(8), "", 0),
        (COUNT_TOKENS, {"input_tokens": 2000}, Usage(), "", 0),
    ],
)
def test_facts_of_a_response(method: str, body: Any, usage: Usage, reason: str, tools: int) -> None:
    facts = facts_of(method, json.dumps(body).encode())
    assert (facts.usage, facts.finish_reason, facts.tools) == (usage, reason, tools)


WRITTEN = {
    **ANSWER["usage"],
    "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2},
}


def test_input_that_is_cached_for_an_hour_is_counted_apart() -> None:
    expected = Usage(10, 4, 3, 5, cache_write_1h=2)
    body = json.dumps({**ANSWER, "usage": WRITTEN}).encode()
    assert facts_of(MESSAGES, body).usage == expected
    start = {"type": "message_start", "message": {"usage": {**WRITTEN, "output_tokens": 1}}}
    facts = StreamFacts(MESSAGES, 40)
    facts.feed(sse(start, *ANSWER_STREAM[1:], named=True))
    assert facts.usage == expected


@pytest.mark.parametrize(("method", "given", "made"), [
    (CHAT, "prompt", "completion"), (RESPONSES, "input", "output"),
])  # fmt: skip
def test_audio_and_images_are_counted_apart(method: str, given: str, made: str) -> None:
    reported = {
        f"{given}_tokens": 100, f"{made}_tokens": 50,
        f"{given}_tokens_details": {"cached_tokens": 30, "audio_tokens": 40, "image_tokens": 900},
        f"{made}_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 900},
    }  # fmt: skip
    expected = Usage(
        100, 30, 0, 50, 20, audio_input=40, image_input=30, audio_output=30
    )  # never more than the sum
    assert usage_of(method, reported) == expected


def test_a_member_of_another_type_does_not_hide_the_usage() -> None:
    body = json.dumps({"choices": {"a": 1}, "usage": {"prompt_tokens": 3}}).encode()
    assert facts_of(CHAT, body).usage == Usage(3)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"a":', b"\xff{}", b'{"usage":' * 5000])
def test_a_body_that_is_no_object_is_rejected(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the messages are those of the decoder
        facts_of(CHAT, body)


@given(st.sampled_from(METHODS), st.dictionaries(NAMES, ANY | DETAILS, max_size=6))
def test_reported_numbers_are_limited(method: str, reported: Any) -> None:
    usage = usage_of(method, reported)
    if usage is not None:
        assert 0 <= usage.reasoning <= usage.output <= MAX_TOKENS
        assert 0 <= usage.cached <= usage.cached + usage.cache_write <= usage.input
        assert usage.cache_write_1h <= usage.cache_write
        parts = usage.cached, usage.cache_write, usage.audio_input, usage.image_input
        assert min(parts) >= 0
        assert sum(parts) <= usage.input
        assert 0 <= usage.audio_output <= usage.output - usage.reasoning
        assert usage.input <= 3 * MAX_TOKENS


@given(st.sampled_from(METHODS), ANY)
def test_any_response_has_a_usage_or_is_rejected(method: str, body: Any) -> None:
    raw = json.dumps(body).encode()
    try:
        facts = facts_of(method, raw)
    except ValueError:
        assert not isinstance(body, dict)
        return
    assert usage_or_estimate(method, facts, 100, raw).input > 0


@given(st.sampled_from((CHAT, RESPONSES, MESSAGES)), st.binary(max_size=200), ANY)
def test_any_stream_is_read_without_an_error(method: str, noise: bytes, event: Any) -> None:
    facts = StreamFacts(method, 40)
    facts.feed(noise + b"\n\n")
    for key in ("usage", "response", "message", "delta", "choices", "type"):
        facts.feed(b'data: {"type":"message_delta","%b":%b}\n\n' % (
            key.encode(), json.dumps(event).encode()))  # fmt: skip
    assert 0 <= facts.usage.input <= 3 * MAX_TOKENS


CHAT_STREAM = [
    {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
    {"choices": [{"delta": {"content": 'Hello "usage":{'}, "finish_reason": None}]},
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]},
    {"choices": [{"delta": {}, "finish_reason": "tool_calls"}], "usage": None},
    {"choices": [], "usage": CHAT_BODY["usage"]},
]  # fmt: skip
RESPONSE_STREAM = [
    {"type": "response.created", "response": {"status": "in_progress", "usage": None}},
    {"type": "response.output_item.added", "item": {"type": "function_call"}},
    {"type": "response.output_text.delta", "delta": "Hello"},
    {"type": "response.incomplete", "response": RESPONSE},
]


def test_thinking_tokens_are_a_part_of_the_output() -> None:
    reported = {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 7}}
    body = json.dumps({"usage": {"input_tokens": 3, **reported}}).encode()
    assert facts_of(MESSAGES, body).usage == Usage(3, output=9, reasoning=7)
    facts = StreamFacts(MESSAGES, 100)
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 3}}}
    facts.feed(sse(start, {"type": "message_delta", "usage": reported}, named=True))
    assert facts.usage == Usage(3, output=9, reasoning=7)


ANSWER_STREAM = [
    {"type": "message_start", "message": {"usage": {**ANSWER["usage"], "output_tokens": 1}}},
    {"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f"}},
    {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{}"}},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "events", "usage", "reason"),
    [
        (CHAT, sse(*CHAT_STREAM) + b"data: [DONE]\n\n", Usage(10, 4, 0, 5, 3), "tool_calls"),
        (RESPONSES, sse(*RESPONSE_STREAM, named=True), Usage(10, 4, 0, 5, 3), "max_output_tokens"),
        (MESSAGES, sse(*ANSWER_STREAM, named=True), Usage(10, 4, 3, 5, 0), "tool_use"),
    ],
    ids=["chat", "responses", "messages"],
)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_facts_of_a_stream(
    method: str, events: bytes, usage: Usage, reason: str, line_end: bytes
) -> None:
    facts = StreamFacts(method, 40)
    for event in events.removesuffix(b"\n\n").split(b"\n\n"):
        assert not facts.complete
        facts.feed((event + b"\n\n").replace(b"\n", line_end))
    assert facts.complete
    assert facts.usage == usage
    assert (facts.facts.finish_reason, facts.facts.tools) == (reason, 1)


def test_tokens_that_a_later_event_counts_as_cached_are_not_counted_twice() -> None:
    first = {"audio_tokens": 900}, {"audio_tokens": 50}
    last = {"audio_tokens": 900, "cached_tokens": 800}, {"audio_tokens": 50, "reasoning_tokens": 20}
    facts = StreamFacts(CHAT, 40)
    for read, made in (first, last):
        usage = {
            "prompt_tokens": 1000, "prompt_tokens_details": read,
            "completion_tokens": 50, "completion_tokens_details": made,
        }  # fmt: skip
        facts.feed(sse({"choices": [], "usage": usage}))
    facts.feed(b"data: [DONE]\n\n")
    assert facts.usage == Usage(1000, 800, 0, 50, 20, audio_input=200, audio_output=30)


@pytest.mark.parametrize(
    ("method", "events", "expected"),
    [
        # A text of two chunks, with 24 bytes: more tokens than chunks.
        (CHAT, [{"choices": [{"delta": {"content": "x" * 12}}]}] * 2, Usage(10, output=6)),
        (CHAT, [{"choices": [{"delta": {"content": "x"}}]}] * 5, Usage(10, output=5)),
        (RESPONSES, [{"type": "response.x.delta", "delta": "x" * 12}], Usage(10, output=3)),
        (MESSAGES, ANSWER_STREAM[:3], Usage(10, 4, 3, output=1)),
    ],
)  # fmt: skip
def test_a_stream_that_ends_early_is_estimated(method: str, events: Any, expected: Usage) -> None:
    facts = StreamFacts(method, 40)
    facts.feed(sse(*events))
    assert facts.usage == Usage(
        expected.input, expected.cached, expected.cache_write, expected.output, estimated=True
    )


def test_only_an_event_without_choices_is_a_usage_event() -> None:
    assert is_usage_only(b'{"choices":[],"usage":{"prompt_tokens":1}}')
    assert not is_usage_only(b'{"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}')
    assert not is_usage_only(b'{"choices":[],"usage":null}')
    assert not is_usage_only(b"[DONE]")
