"""Tools and tool calls in the form of each API for models, and bodies that are rejected."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.errors import InvalidError
from toolbus_common.model_api.tool_forms import (
    MAX_CONCURRENT,
    Form,
    ToolCall,
    definition_of,
    messages_of,
    parse_object,
    parse_suggestion,
)

DEEP = json.loads("[" * 60 + "]" * 60)


def tool_use(call_id: Any = "toolu_1", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "clock__now", "input": {"a": 1}, **fields}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def chat(call_id: Any = "call_1", **fields: Any) -> dict[str, Any]:
    function = {"name": "clock__now", "arguments": '{"a":1}', **fields}
    return {"id": call_id, "type": "function", "function": function}


def response(**fields: Any) -> dict[str, Any]:
    call = {"type": "function_call", "call_id": "c", "name": "clock__now", "arguments": '{"a":1}'}
    return {**call, **fields}


@pytest.mark.parametrize("description", [{}, {"description": "Tell the time."}])
def test_a_tool_is_listed_in_the_form_of_each_api(description: dict[str, str]) -> None:
    schema = {"type": "object", "properties": {"zone": {"type": "string"}}}
    tool = {"name": "clock__now", "inputSchema": schema, "annotations": {}, **description}
    function = {"name": "clock__now", "parameters": schema, **description}
    assert definition_of(tool, Form.CHAT) == {"type": "function", "function": function}
    flat = {"type": "function", "strict": False, **function}
    assert definition_of(tool, Form.RESPONSES) == flat
    named = {"name": "clock__now", "input_schema": schema, **description}
    assert definition_of(tool, Form.MESSAGES) == named


@pytest.mark.parametrize(
    ("body", "call_id", "form", "result"),
    [
        (chat(), "call_1", Form.CHAT,
         {"role": "tool", "tool_call_id": "call_1", "content": "text"}),
        (response(), "c", Form.RESPONSES,
         {"type": "function_call_output", "call_id": "c", "output": "text"}),
        (tool_use(), "toolu_1", Form.MESSAGES,
         {"type": "tool_result", "tool_use_id": "toolu_1", "content": "text"}),
    ],
)  # fmt: skip
def test_a_tool_call_has_its_result_in_the_same_form(
    body: dict[str, Any], call_id: str, form: Form, result: dict[str, Any]
) -> None:
    call = parse_suggestion(body)
    assert call == ToolCall("clock__now", {"a": 1}, call_id, form)
    assert call.result("text", failed=False) == result
    failure = {"is_error": True} if form is Form.MESSAGES else {}
    assert call.result("text", failed=True) == {**result, **failure}


def test_all_tool_calls_of_a_message_keep_their_order() -> None:
    blocks = [tool_use(f"toolu_{number}") for number in range(MAX_CONCURRENT)]
    for body in (assistant(*blocks), {"tool_calls": [chat(each["id"]) for each in blocks]}):
        calls = parse_suggestion(body)
        assert isinstance(calls, list)
        assert [call.call_id for call in calls] == [each["id"] for each in blocks]


def test_a_whole_response_of_the_messages_api_is_an_assistant_message() -> None:
    thinking = {"type": "thinking", "thinking": "…", "signature": "s"}
    searched = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    text = {"type": "text", "text": "I look."}
    body = {
        "id": "msg_1", "type": "message", "model": "claude", "stop_reason": "tool_use",
        "usage": {"input_tokens": 1},
        **assistant(thinking, text, searched, tool_use(), *[text] * 999),
    }  # fmt: skip
    assert parse_suggestion(body) == [ToolCall("clock__now", {"a": 1}, "toolu_1", Form.MESSAGES)]


def test_the_results_of_the_messages_api_are_one_user_message() -> None:
    results = [{"type": "tool_result", "tool_use_id": "a", "content": ""}]
    assert messages_of(Form.MESSAGES, results) == {"role": "user", "content": results}
    assert messages_of(Form.CHAT, results) == {"messages": results}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (tool_use(input='{"a": 1}'), "must be an object, not its text"),
        (tool_use(input=[1]), "must be an object"),
        (tool_use(input=None), "must be an object"),
        (tool_use(None), "needs an id and a name"),
        (tool_use(7), "needs an id and a name"),
        (tool_use(name=["clock__now"]), "needs an id and a name"),
        ({"type": "tool_use"}, "needs an id and a name"),
        (assistant(), "has 0 blocks of type 'tool_use'. Send 1 to 32."),
        (assistant({"type": "text", "text": "x"}), "has 0 blocks"),
        (assistant({"type": {"tool_use": 1}}, {"type": DEEP}), "has 0 blocks"),
        (assistant(*(tool_use(str(number)) for number in range(1000))), "has 1000 blocks"),
        (assistant(tool_use(), tool_use()), "have the same id"),
        (assistant(tool_use("a"), tool_use("b", input=1)), "must be an object"),
        (assistant("tool_use"), "a list of objects"),
        (assistant(tool_use(), DEEP), "a list of objects"),
        ({"role": "assistant", "content": "text"}, "Invalid tool call"),
        ({"role": "user", "content": [tool_use()]}, "Invalid tool call"),
        ({"tool_calls": [tool_use()]}, "no id"),
        ({"tool_calls": []}, "1 to 32 tool calls"),
        ({"tool_calls": {}}, "1 to 32 tool calls"),
        ({"tool_calls": [chat()] * 1000}, "1 to 32 tool calls"),
        ({"tool_calls": [None]}, "Invalid tool call"),
        (chat(arguments="[1]"), "must be a JSON object"),
        (chat(arguments=1), "must be a JSON object"),
        (chat(None), "no id"),
        (response(call_id=None), "no id"),
        ({}, "Invalid tool call"),
    ],
)
def test_an_invalid_suggestion_is_rejected_as_a_whole(body: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidError, match=re.escape(reason)):
        parse_suggestion(body)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "id", "name", "input", "role", "content", "tool_calls", "function"]
            ),
            inner | st.sampled_from(["tool_use", "assistant"]),
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["type", "role", "content", "tool_calls", "id"]), values))
def test_any_body_is_parsed_or_rejected(body: dict[str, Any]) -> None:
    try:
        found = parse_suggestion(body)
    except InvalidError:
        return
    for call in [found] if isinstance(found, ToolCall) else found:
        assert isinstance(call.arguments, dict)
        assert isinstance(call.call_id, str)


@pytest.mark.parametrize("text", [b"", b"[]", b"1", b'"{}"', b"{", b'{"a":1,"a":2}', b"\xff"])
def test_a_text_that_is_not_an_object_is_rejected(text: bytes) -> None:
    with pytest.raises(InvalidError, match="JSON object"):
        parse_object(text)
