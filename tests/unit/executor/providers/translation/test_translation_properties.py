"""Properties of translations: round trips, hostile input, and streams that are cut anywhere."""

import copy
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.clients.model_sdks import (
    CHAT,
    MESSAGES,
    RESPONSES,
    accumulated,
    check_response,
    payloads,
)
from harness.models.translations import PAIRS, fed, translation
from toolbus_common.errors import InvalidError, UpstreamInvalidError
from toolbus_executor.providers.translation.apis import converse, gemini
from toolbus_executor.providers.translation.base import StreamTranslation

GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = 30  # for each pair
ENDS = re.compile(r'"(finish_reason|stop_reason|finishReason|stopReason|blockReason)": "')
FAILURES = gemini.FAILURES | converse.FAILURES  # reasons of a response that has ended, but failed
SOURCES = {
    kind: yaml.safe_load((GOLDEN / f"{kind}.yaml").read_text())
    for kind in ("requests", "responses", "streams")
}
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(["type", "role", "content", "text", "id", "function", "input", "x"])
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda each: st.lists(each, max_size=3) | st.dictionaries(KEYS, each, max_size=3)
)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
ARGUMENTS = st.dictionaries(TEXT, st.integers() | TEXT | st.lists(TEXT, max_size=2), max_size=2)
CALL = st.fixed_dictionaries({"name": st.sampled_from(["f", "g"]), "arguments": ARGUMENTS})
REPLY = st.fixed_dictionaries(
    {
        "thought": st.just("") | TEXT,
        "text": st.just("") | TEXT,
        "calls": st.lists(CALL, max_size=3),
        "finish": st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
        "tokens": st.tuples(*[st.integers(0, 1000)] * 3),
    }
)


def mutated(body: Any, data: st.DataObject) -> Any:
    """Return the body with one value, somewhere in it, replaced by any JSON value."""
    body = copy.deepcopy(body)
    place: Any = body
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return body
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            return body
        place = place[key]


@pytest.mark.parametrize("pair", PAIRS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_malformed_request_is_translated_or_refused(pair: str, data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(list(SOURCES["requests"][pair].values())))
    with suppress(InvalidError):
        assert isinstance(translation(pair).request(mutated(body, data)), dict)


@pytest.mark.parametrize("pair", PAIRS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_malformed_response_is_translated_or_refused(pair: str, data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(list(SOURCES["responses"][pair].values())))
    with suppress(UpstreamInvalidError):
        made = translation(pair).response(mutated(body, data))
        check_response(PAIRS[pair][0], made)


@pytest.mark.parametrize("pair", PAIRS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_malformed_stream_is_translated_or_refused(pair: str, data: st.DataObject) -> None:
    events = data.draw(st.sampled_from(list(SOURCES["streams"][pair].values())))
    malformed = mutated(events, data)
    stream = translation(pair).stream()
    with suppress(UpstreamInvalidError):
        for event in malformed:
            fed(stream, event)
        stream.end()


@settings(max_examples=EXAMPLES)
@given(data=st.binary(max_size=30))
@pytest.mark.parametrize("pair", PAIRS)
def test_an_event_that_is_not_json_is_refused(pair: str, data: bytes) -> None:
    stream = translation(pair).stream()
    with suppress(UpstreamInvalidError):
        assert isinstance(stream.feed("", data), bytes)


@pytest.mark.parametrize("body", [[], "text", None, 1])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_body_that_is_not_an_object_is_refused(pair: str, body: Any) -> None:
    with pytest.raises(InvalidError):
        translation(pair).request(body)
    with pytest.raises(UpstreamInvalidError):
        translation(pair).response(body)


@pytest.mark.parametrize("pair", PAIRS)
def test_deep_nesting_is_translated_or_refused(pair: str) -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    client = PAIRS[pair][0]
    function = {"name": "f", "parameters": deep, "input_schema": deep}
    tool = function if client == MESSAGES else {"type": "function", **function}
    if client == CHAT:
        tool = {"type": "function", "function": function}
    block = {"type": "tool_use", "id": "1", "name": "f", "input": deep}
    for fields in (
        {"tools": [tool]},
        {"messages": [{"role": "assistant", "content": [block]}]},
        {"messages": deep, "input": deep},
    ):
        body = {"model": "m", "max_tokens": 1, "messages": [], "input": []}
        body = {key: value for key, value in body.items() if key in _FIELDS[client]}
        with suppress(InvalidError):
            translation(pair).request(body | fields)
    stream = translation(pair).stream()
    with pytest.raises(UpstreamInvalidError):
        stream.feed("", b'{"type":' + b"[" * 100_000)


_FIELDS = {
    CHAT: {"model", "messages", "max_tokens"},
    MESSAGES: {"model", "messages", "max_tokens"},
    RESPONSES: {"model", "input"},
}


@pytest.mark.parametrize("pair", PAIRS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_stream_that_is_cut_ends_with_an_error(pair: str, data: st.DataObject) -> None:
    events = data.draw(st.sampled_from(list(SOURCES["streams"][pair].values())))
    count = data.draw(st.integers(0, len(events)))
    stream = translation(pair).stream()
    made = b""
    for event in events[:count]:
        made += fed(stream, event)
    made += stream.end()
    assert stream.end() == b""
    assert stream.feed("", b"{}") == b""
    seen = json.dumps(events[:count])
    complete = bool(ENDS.search(seen)) and not any(each in seen for each in FAILURES)
    (*_, last) = payloads(made)
    failed = "error" in last or bool(last.get("response", {}).get("error"))
    assert failed is not complete


def completion(reply: dict[str, Any]) -> dict[str, Any]:
    """Return a response of the chat completions API."""
    message = {"role": "assistant", "content": reply["text"] or None}
    if reply["thought"]:
        message["reasoning_content"] = reply["thought"]
    if reply["calls"]:
        message["tool_calls"] = calls_of(reply)
    prompt, cached, output = reply["tokens"]
    details = {"cached_tokens": min(cached, prompt)}
    usage = {"prompt_tokens": prompt, "completion_tokens": output, "prompt_tokens_details": details}
    choice = {"index": 0, "message": message, "finish_reason": reply["finish"]}
    return {"id": "c", "model": "m", "created": 1, "choices": [choice], "usage": usage}


def calls_of(reply: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{number}", "type": "function", "function": {**call, "arguments": text}}
        for number, call in enumerate(reply["calls"])
        for text in [json.dumps(call["arguments"])]
    ]


def pieces(text: str, data: st.DataObject) -> list[str]:
    cut = data.draw(st.integers(0, len(text)))
    return [part for part in (text[:cut], text[cut:]) if part]


def chunks(reply: dict[str, Any], data: st.DataObject) -> list[dict[str, Any]]:
    """Return the same response as `completion`, as a stream."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": part} for part in pieces(reply["thought"], data)]
    deltas += [{"content": part} for part in pieces(reply["text"], data)]
    for index, call in enumerate(calls_of(reply)):
        function = {"name": call["function"]["name"], "arguments": ""}
        deltas.append({"tool_calls": [{**call, "index": index, "function": function}]})
        for part in pieces(call["function"]["arguments"], data):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    head = {"id": "c", "model": "m", "created": 1}
    made = [{**head, "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    made.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reply["finish"]}]})
    return [*made, {**head, "choices": [], "usage": completion(reply)["usage"]}]


def whole(stream: StreamTranslation, events: list[Any]) -> bytes:
    return b"".join([*(fed(stream, each) for each in events), stream.end()])


@given(reply=REPLY, data=st.data())
def test_a_streamed_message_equals_the_whole_message(
    reply: dict[str, Any], data: st.DataObject
) -> None:
    pair = translation("messages_to_chat")
    expected = pair.response(completion(reply))
    check_response(MESSAGES, expected)
    made = accumulated(MESSAGES, whole(pair.stream(), chunks(reply, data)))
    for name in ("id", "model", "content", "stop_reason"):
        assert made[name] == expected[name]
    for name in ("input_tokens", "output_tokens", "cache_read_input_tokens"):
        assert made["usage"][name] == expected["usage"][name]


@given(reply=REPLY, data=st.data())
def test_a_streamed_response_equals_the_whole_response(
    reply: dict[str, Any], data: st.DataObject
) -> None:
    pair = translation("responses_to_chat")
    expected = pair.response(completion(reply))
    check_response(RESPONSES, expected)
    made = accumulated(RESPONSES, whole(pair.stream(), chunks(reply, data)))
    assert (made["status"], made["id"]) == (expected["status"], expected["id"])
    assert made["usage"]["total_tokens"] == expected["usage"]["total_tokens"]
    assert [without_ids(each) for each in made["output"]] == [
        without_ids(each) for each in expected["output"]
    ]


def without_ids(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "id" and value is not None}


@given(reply=REPLY)
def test_a_response_survives_a_round_trip_over_the_messages_api(reply: dict[str, Any]) -> None:
    source = completion(reply)
    message = translation("messages_to_chat").response(source)
    back = translation("chat_to_messages").response(message)
    check_response(CHAT, back)
    given_message, made = source["choices"][0]["message"], back["choices"][0]["message"]
    if message["stop_reason"] == "refusal":
        made["content"] = made.pop("refusal")
    assert made["content"] == given_message["content"]
    assert made.get("reasoning_content") == given_message.get("reasoning_content")
    assert [parsed(each) for each in made.get("tool_calls", [])] == [
        parsed(each) for each in given_message.get("tool_calls", [])
    ]
    for name in ("prompt_tokens", "completion_tokens"):
        assert back["usage"][name] == source["usage"][name]


def parsed(call: dict[str, Any]) -> Any:
    function = call["function"]
    return call["id"], function["name"], json.loads(function["arguments"])


@given(reply=REPLY, data=st.data())
def test_a_conversation_survives_a_round_trip_over_the_chat_api(
    reply: dict[str, Any], data: st.DataObject
) -> None:
    assistant: list[dict[str, Any]] = []
    if reply["text"]:
        assistant.append({"type": "text", "text": reply["text"]})
    results: list[dict[str, Any]] = []
    for call in calls_of(reply):
        arguments = json.loads(call["function"]["arguments"])
        name = call["function"]["name"]
        assistant.append({"type": "tool_use", "id": call["id"], "name": name, "input": arguments})
        content = data.draw(TEXT)
        results.append({"type": "tool_result", "tool_use_id": call["id"], "content": content})
    question = {"type": "text", "text": data.draw(TEXT)}
    conversation = [{"role": "user", "content": [question]}]
    if assistant:
        conversation.append({"role": "assistant", "content": assistant})
        last = {"type": "text", "text": data.draw(TEXT)}
        conversation.append({"role": "user", "content": [*results, last]})
    body = {"model": "m", "max_tokens": 9, "system": data.draw(TEXT), "messages": conversation}
    back = translation("chat_to_messages").request(translation("messages_to_chat").request(body))
    assert back["messages"] == conversation
    assert back["system"] == [{"type": "text", "text": body["system"]}]
    assert back["max_tokens"] == 9
