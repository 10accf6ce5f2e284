"""Sampling requests in the form of the chat API, and answers in the form of MCP."""

from typing import Any

import msgspec
import pytest

from toolbus_common.config import Sampling
from toolbus_common.errors import InvalidError, UpstreamInvalidError
from toolbus_ingress.sampling.chat_request import chat_request, sampling_result

LIMITS = Sampling(model="fast", max_tokens=100)
TOOLS = Sampling(model="fast", max_tokens=100, tools=True)
IMAGE = {"type": "image", "data": "", "mimeType": "image/png"}
ASK = {"role": "user", "content": {"type": "text", "text": "Who?"}}


def params(*messages: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"messages": list(messages or (ASK,)), "maxTokens": 500, **members}


def test_every_member_is_mapped_and_the_lower_limit_applies() -> None:
    request = chat_request(
        params(systemPrompt="Be brief.", temperature=0.5, stopSequences=["."], metadata={"a": 1}),
        LIMITS,
    )
    assert msgspec.json.decode(request.encode("fast", "max_completion_tokens")) == {
        "model": "fast",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Who?"},
        ],
        "temperature": 0.5,
        "stop": ["."],
        "max_completion_tokens": 100,
    }


def test_hints_and_context_do_not_change_the_request() -> None:
    hints = {"modelPreferences": {"hints": [{"name": "opus"}]}, "includeContext": "allServers"}
    assert chat_request(params(**hints), LIMITS) == chat_request(params(), LIMITS)


def test_images_and_audio_are_parts() -> None:
    content = [
        {"type": "text", "text": "Look"},
        {"type": "image", "data": "QUJD", "mimeType": "image/png"},
        {"type": "audio", "data": "QUJD", "mimeType": "audio/wav"},
    ]
    request = chat_request(params({"role": "user", "content": content}), LIMITS)
    assert request.members["messages"][0]["content"] == [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
    ]


def test_a_finish_reason_that_is_no_text_ends_the_turn() -> None:
    choice: dict[str, Any] = {"message": {"content": "hi"}, "finish_reason": []}
    result = sampling_result(msgspec.json.encode({"choices": [choice]}), "local/gemma")
    assert result["stopReason"] == "endTurn"


def test_tool_uses_and_results_keep_their_ids() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}}
    result = {"type": "tool_result", "toolUseId": "t1", "content": [{"type": "text", "text": "2"}]}
    request = chat_request(
        params(
            ASK,
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
            tools=[{"name": "add", "inputSchema": {"type": "object"}}],
            toolChoice={"mode": "required"},
        ),
        TOOLS,
    )
    _, assistant, tool = request.members["messages"]
    assert assistant["tool_calls"][0]["id"] == tool["tool_call_id"] == "t1"
    assert assistant["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a":1}'}
    assert tool["content"] == "2"
    assert request.members["tool_choice"] == "required"
    assert request.tools == 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"messages": []}, "messages"),
        ({"maxTokens": 0}, "maxTokens"),
        ({"maxTokens": "1"}, "maxTokens"),
        ({"temperature": 3}, "temperature"),
        ({"stopSequences": ["x"] * 17}, "stopSequences"),
        ({"messages": [{"role": "system", "content": ASK["content"]}]}, "role"),
        ({"tools": [{"name": "add"}]}, "tools"),
        (
            {"messages": [{"role": "user", "content": IMAGE | {"data": "\n"}}]},
            "base64",
        ),
        (
            {"messages": [{"role": "assistant", "content": IMAGE}]},
            "assistant",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_expressed_is_refused_by_its_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidError, match=named):
        chat_request(params() | wrong, LIMITS)


def test_an_answer_has_the_text_the_model_and_the_reason() -> None:
    choice = {"message": {"role": "assistant", "content": "Me."}, "finish_reason": "length"}
    body = msgspec.json.encode({"model": "gemma", "choices": [choice]})
    assert sampling_result(body, "local/gemma") == {
        "role": "assistant",
        "content": {"type": "text", "text": "Me."},
        "model": "gemma",
        "stopReason": "maxTokens",
    }


def test_suggested_tools_become_tool_uses() -> None:
    call = {"id": "t1", "function": {"name": "add", "arguments": '{"a":1}'}}
    choice = {"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}
    result = sampling_result(msgspec.json.encode({"choices": [choice]}), "local/gemma")
    assert result["content"] == [{"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}}]
    assert (result["stopReason"], result["model"]) == ("toolUse", "local/gemma")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"choices":[]}', b'{"choices":[{}]}', b"[" * 9999])
def test_another_response_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamInvalidError):
        sampling_result(body, "local/gemma")
