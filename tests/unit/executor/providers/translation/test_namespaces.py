"""Functions in a namespace of the responses API, as Codex sends them, over the chat API."""

import json
from typing import Any

from toolbus_common.contracts.model_calls import CHAT, RESPONSES
from toolbus_executor.providers.translation.responses_to_chat.request import chat_request
from toolbus_executor.providers.translation.responses_to_chat.response import repeated, response
from toolbus_executor.providers.translation.select import translation_for

CLOSE = {"type": "function", "name": "close", "description": "Close one.", "parameters": {}}
TOOLS = [
    {"type": "namespace", "name": "agents", "description": "Agents.", "tools": [CLOSE]},
    {"type": "function", "name": "close", "parameters": {}},
]
BODY: dict[str, Any] = {"model": "m", "input": "hi", "tools": TOOLS}


def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    """Return the data of one event of a stream of the chat completions API."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return json.dumps({"id": "x", "choices": [choice]}).encode()


def test_a_function_has_a_joined_name_and_the_description_of_its_namespace() -> None:
    functions = [each["function"] for each in chat_request(BODY, "max", extended=False)["tools"]]
    assert [each["name"] for each in functions] == ["agents__close", "close"]
    assert functions[0]["description"] == "Agents.\n\nClose one."


def test_a_call_names_its_namespace() -> None:
    calls = [
        {"id": f"c{at}", "type": "function", "function": {"name": name, "arguments": "{}"}}
        for at, name in enumerate(("agents__close", "close"))
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    output = response(body, repeated(BODY))["output"]
    assert [(each.get("namespace"), each["name"]) for each in output] == [
        ("agents", "close"), (None, "close"),
    ]  # fmt: skip


def test_an_earlier_call_is_sent_under_its_joined_name() -> None:
    call = {
        "type": "function_call", "call_id": "c", "namespace": "agents", "name": "close",
        "arguments": "{}",
    }  # fmt: skip
    result = {"type": "function_call_output", "call_id": "c", "output": "done"}
    sent = chat_request({**BODY, "input": [call, result]}, "max", extended=False)
    (made,) = sent["messages"][0]["tool_calls"]
    assert made["function"]["name"] == "agents__close"


def test_a_streamed_call_names_its_namespace() -> None:
    translation = translation_for(RESPONSES, {CHAT}, 4096)
    assert translation is not None
    translation.request({**BODY, "stream": True})
    stream = translation.stream()
    function = {"name": "agents__close", "arguments": "{}"}
    delta = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": function}]}
    sent = stream.feed("", chunk(delta)) + stream.feed("", chunk({}, "tool_calls")) + stream.end()
    assert b'"name":"close","namespace":"agents"' in sent
    assert b"agents__close" not in sent
