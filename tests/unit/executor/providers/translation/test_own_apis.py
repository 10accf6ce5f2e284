"""The own APIs of Gemini and Amazon Bedrock: signatures that return, facts, and refusals."""

from typing import Any

import pytest

from harness.models.own_api_types import check_embeddings_request, check_gemini_count
from harness.models.translations import MAX_OUTPUT, PAIRS, check_request, fed, translation
from toolbus_common.contracts.model_calls import CHAT, COUNT_TOKENS, EMBEDDINGS, MESSAGES, RESPONSES
from toolbus_common.errors import InvalidError, UpstreamInvalidError
from toolbus_executor.providers.endpoints.methods import (
    CONVERSE,
    CONVERSE_COUNT,
    EMBED,
    GEMINI_COUNT,
    GENERATE,
    VERTEX_COUNT,
)
from toolbus_executor.providers.translation.select import translation_for

HI = [{"role": "user", "content": "Hi"}]
MODEL = "gemini-3-pro-preview"
GENERATED = {
    "candidates": [
        {
            "content": {
                "parts": [
                    {"text": "Hm.", "thought": True},
                    {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2ln"},
                    {"functionCall": {"name": "g", "args": {}, "id": "g1"}},
                ]
            },
            "finishReason": "STOP",
        }
    ],
    "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 3},
}
CALLED = [
    {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2ln"},
    {"functionCall": {"name": "g", "args": {}, "id": "g1"}},
]


def next_request(client: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the client's next request: its question, the answer, and the results of tools."""
    body: dict[str, Any] = {"model": MODEL}
    if client == CHAT:
        message = answer["choices"][0]["message"]
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": "ok"}
            for call in message["tool_calls"]
        ]
        return body | {"messages": [*HI, message, *results]}
    if client == MESSAGES:
        content = [
            {"type": "tool_result", "tool_use_id": block["id"], "content": "ok"}
            for block in answer["content"]
            if block["type"] == "tool_use"
        ]
        turn = {"role": "assistant", "content": answer["content"]}
        messages = [*HI, turn, {"role": "user", "content": content}]
        return body | {"max_tokens": 9, "messages": messages}
    outputs = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "ok"}
        for item in answer["output"]
        if item["type"] == "function_call"
    ]
    return body | {"input": [*HI, *answer["output"], *outputs]}


@pytest.mark.parametrize("client", [CHAT, MESSAGES, RESPONSES])
def test_a_thought_signature_returns_in_the_part_that_it_belongs_to(client: str) -> None:
    pair = f"{client.removeprefix('models/')}_to_gemini"
    used = translation(pair)
    made = translation(pair).request(next_request(client, used.response(GENERATED)))
    question, called, results = made["contents"]
    assert (question["role"], called["role"], results["role"]) == ("user", "model", "user")
    assert called["parts"] == CALLED
    assert [each["functionResponse"]["name"] for each in results["parts"]] == ["f", "g"]
    assert used.facts is not None
    assert used.facts.tools == 2


def test_a_chat_client_that_keeps_only_the_tool_calls_returns_the_signature() -> None:
    answer = translation("chat_to_gemini").response(GENERATED)
    del answer["choices"][0]["message"]["thinking_blocks"]
    made = translation("chat_to_gemini").request(next_request(CHAT, answer))
    assert made["contents"][1]["parts"] == CALLED


def test_a_tool_call_of_another_model_is_sent_with_the_documented_value() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    for model, expected in ((MODEL, "skip_thought_signature_validator"), ("gemini-2.5-pro", None)):
        body = {"model": model, "messages": [*HI, message]}
        made = translation("chat_to_gemini").request(body)
        assert made["contents"][1]["parts"][0].get("thoughtSignature") == expected


def test_a_signature_of_gemini_is_not_sent_to_another_provider() -> None:
    block = {"type": "thinking", "thinking": "Hm.", "signature": "gemini:0:c2ln"}
    message = {"role": "assistant", "content": "Yes.", "thinking_blocks": [block]}
    body = {"model": "claude", "messages": [*HI, message]}
    made = translation("chat_to_messages").request(body)
    assert made["messages"][1]["content"] == [{"type": "text", "text": "Yes."}]


def test_the_usage_of_a_stream_is_estimated_until_it_is_complete() -> None:
    stream = translation("chat_to_gemini").stream()
    assert stream.facts is not None
    stream.facts.request_bytes = 40
    part = {"content": {"parts": [{"text": "Hello there"}]}}
    fed(stream, {"candidates": [part], "usageMetadata": {"promptTokenCount": 7}})
    usage = stream.facts.usage
    assert (usage.input, usage.output, usage.estimated) == (7, 3, True)
    fed(stream, {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {
        "promptTokenCount": 7, "candidatesTokenCount": 2}})  # fmt: skip
    usage = stream.facts.usage
    assert (usage.input, usage.output, usage.estimated) == (7, 2, False)


def modalities(**counts: int) -> list[dict[str, Any]]:
    return [{"modality": kind, "tokenCount": count} for kind, count in counts.items()]


WITH_MEDIA = {
    "promptTokenCount": 390,
    "cachedContentTokenCount": 40,
    "candidatesTokenCount": 20,
    "promptTokensDetails": modalities(TEXT=10, AUDIO=100, IMAGE=200, VIDEO=58, DOCUMENT=22),
    "cacheTokensDetails": modalities(AUDIO=40),
    "candidatesTokensDetails": modalities(TEXT=5, AUDIO=15),
}


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("more", "kinds"),
    [
        ({}, (60, 280, 15)),
        ({"toolUsePromptTokenCount": 9, "toolUsePromptTokensDetails": modalities(IMAGE=9)},
         (60, 289, 15)),
        ({"promptTokensDetails": modalities(AUDIO=10**9), "candidatesTokensDetails": [7]},
         (350, 0, 0)),
        ({"promptTokensDetails": [{"modality": ["AUDIO"], "tokenCount": 5}, "AUDIO"],
          "cacheTokensDetails": {"modality": "AUDIO"}}, (0, 0, 15)),
        ({"promptTokensDetails": modalities(AUDIO=-5, IMAGE=-1)}, (0, 0, 15)),
    ],
)  # fmt: skip
def test_audio_and_images_of_gemini_are_counted_apart(
    *, is_stream: bool, more: dict[str, Any], kinds: tuple[int, int, int]
) -> None:
    used = translation("messages_to_gemini")
    body = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": WITH_MEDIA | more}
    if is_stream:
        stream = used.stream()
        fed(stream, body)
        assert stream.facts is not None
        usage = stream.facts.usage
    else:
        used.response(body)
        assert used.facts is not None
        assert used.facts.usage is not None
        usage = used.facts.usage
    assert (usage.audio_input, usage.image_input, usage.audio_output) == kinds
    assert usage.cached == 40
    assert not usage.estimated


def test_a_failed_tool_call_is_an_error_and_its_usage_is_known() -> None:
    used = translation("chat_to_gemini")
    failed = {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}]}
    with pytest.raises(UpstreamInvalidError, match="MALFORMED_FUNCTION_CALL"):
        used.response(failed | {"usageMetadata": {"promptTokenCount": 9}})
    assert used.facts is not None
    assert used.facts.usage is not None
    assert used.facts.usage.input == 9


def test_without_a_price_no_limit_is_added_to_a_request() -> None:
    for limited, expected in ((True, {"maxOutputTokens": MAX_OUTPUT}), (False, None)):
        found = translation_for(CHAT, {GENERATE}, MAX_OUTPUT, limited=limited)
        assert found is not None
        made = found.request({"model": MODEL, "messages": HI})
        assert made.get("generationConfig") == expected


def test_a_count_of_tokens_has_the_prompt_only() -> None:
    body = {"model": MODEL, "messages": HI, "system": "Be brief.", "tools": [{"name": "f"}]}
    made: dict[str, dict[str, Any]] = {}
    for served in ({GENERATE, GEMINI_COUNT}, {GENERATE, VERTEX_COUNT}, {CONVERSE, CONVERSE_COUNT}):
        found = translation_for(COUNT_TOKENS, served, MAX_OUTPUT)
        assert found is not None
        made[found.provider_method] = found.request(body)
        with pytest.raises(UpstreamInvalidError):
            found.response({})
    check_gemini_count(made[GEMINI_COUNT])
    assert made[VERTEX_COUNT].keys() == {"contents", "systemInstruction", "tools"}
    assert made[CONVERSE_COUNT]["input"]["converse"].keys() == {"messages", "system", "toolConfig"}


@pytest.mark.parametrize(
    ("value", "named"),
    [([1, 2], "tokens in 'input'"), (["x"] * 2049, "more than 2048 texts"), (1, "input")],
)
def test_embeddings_are_made_of_a_limited_number_of_texts(value: Any, named: str) -> None:
    found = translation_for(EMBEDDINGS, {EMBED}, MAX_OUTPUT)
    assert found is not None
    check_embeddings_request(found.request({"model": "e", "input": "Hi", "dimensions": 2}))
    made = found.response({"embeddings": [{"values": [0.5, 1]}]})
    assert made["data"][0]["embedding"] == [0.5, 1]
    with pytest.raises(InvalidError, match=named):
        found.request({"model": "e", "input": value})


@pytest.mark.parametrize(
    ("url", "is_sent"),
    [
        ("https://example.com/cat.png", True),
        ("https://googleapis.com.example.com/cat.png", True),
        ("gs://payroll-bucket/salaries.pdf", False),
        ("http://example.com/cat.png", False),
        ("file:///etc/passwd", False),
        ("https:///cat.png", False),
        ("https://[::1", False),
        ("https://storage.googleapis.com/payroll-bucket/salaries.pdf", False),
        ("HTTPS://a:b@Storage.GoogleAPIs.com.:443/payroll-bucket/salaries.pdf", False),
        ("https://storage.googleapis.com\\.example.com/salaries.pdf", False),
        ("https://storage%2egoogleapis.com/salaries.pdf", False),
        ("https://storage.goo\tgleapis.com/salaries.pdf", False),
        ("https://drive.google.com/file/d/1", False),
    ],
)
def test_only_a_public_url_of_a_file_is_sent(url: str, *, is_sent: bool) -> None:
    image = {"type": "image_url", "image_url": {"url": url}}
    file = {"type": "file", "file": {"file_data": url}}
    for part in (image, file):
        body = {"model": MODEL, "messages": [{"role": "user", "content": [part]}]}
        if is_sent:
            made = translation("chat_to_gemini").request(body)
            assert made["contents"][0]["parts"][0]["fileData"]["fileUri"] == url
        else:
            with pytest.raises(InvalidError, match="such a URL of a file"):
                translation("chat_to_gemini").request(body)


@pytest.mark.parametrize("pair", ["chat_to_gemini", "messages_to_converse"])
def test_an_unknown_finish_reason_is_no_success(pair: str) -> None:
    content = {"parts": [{"text": "Hi"}]}
    made = translation(pair).response(
        {
            "candidates": [{"content": content, "finishReason": "A_NEW_REASON"}],
            "output": {"message": {"content": [{"text": "Hi"}]}},
            "stopReason": "a_new_reason",
        }
    )
    expected = "content_filter" if pair == "chat_to_gemini" else "refusal"
    assert expected in (made.get("stop_reason"), made.get("choices", [{}])[0].get("finish_reason"))


CACHED = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
CACHED_TEXT = [{"type": "text", "text": "Hi", **CACHED}]


@pytest.mark.parametrize(
    "fields",
    [
        {"system": CACHED_TEXT},
        {"messages": [{"role": "user", "content": CACHED_TEXT}]},
        {"tools": [{"name": "f", "input_schema": {"type": "object"}, **CACHED}]},
    ],
    ids=["system", "message", "tool"],
)
def test_a_cache_of_one_hour_on_bedrock_needs_a_model_without_a_price(
    fields: dict[str, Any],
) -> None:
    body = {"model": MODEL, "messages": HI, "max_tokens": 9, **fields}
    priced = translation_for(MESSAGES, {CONVERSE}, MAX_OUTPUT)
    free = translation_for(MESSAGES, {CONVERSE}, MAX_OUTPUT, limited=False)
    assert priced is not None
    assert free is not None
    with pytest.raises(InvalidError, match="the cache ttl '1h'"):
        priced.request(body)
    assert "'ttl': '1h'" in str(free.request(body))


TOOL = {"type": "function", "function": {"name": "f"}}
USE = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/tiff", "data": "AA=="}}


@pytest.mark.parametrize(
    ("client", "served", "fields", "named"),
    [
        (CHAT, GENERATE, {"n": 2}, "'n'"),
        (CHAT, GENERATE, {"logit_bias": {"1": 5}}, "'logit_bias'"),
        (CHAT, GENERATE, {"logprobs": True}, "'logprobs'"),
        (CHAT, GENERATE, {"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        (CHAT, GENERATE, {"tools": [{"type": "custom"}]}, "'custom'"),
        (CHAT, GENERATE, {"reasoning_effort": "huge"}, "'huge'"),
        (CHAT, GENERATE, {"models": ["other"]}, "'models'"),
        (CHAT, GENERATE, {"background": True}, "'background'"),
        (
            CHAT, GENERATE,
            {"messages": [{"role": "tool", "tool_call_id": "x", "content": ""}]},
            "no tool call before it",
        ),
        (MESSAGES, CONVERSE, {"model": "meta.llama3", "top_k": 5}, "'top_k'"),
        (MESSAGES, CONVERSE, {"temperature": 1.5}, "'temperature'"),
        (MESSAGES, CONVERSE, {"container": "c"}, "'container'"),
        (MESSAGES, CONVERSE, {"tools": [{"type": "bash_20250124", "name": "b"}]}, "'bash_2"),
        (MESSAGES, CONVERSE, {"messages": [{"role": "user", "content": [IMAGE]}]}, "'image/tiff'"),
        (MESSAGES, CONVERSE, {"messages": [*HI, USE], "tool_choice": {"type": "none"}}, "'none'"),
        (MESSAGES, CONVERSE, {"messages": [{"role": "critic", "content": "x"}]}, "'critic'"),
    ],
)  # fmt: skip
def test_what_a_provider_cannot_carry_is_refused(
    client: str, served: str, fields: dict[str, Any], named: str
) -> None:
    found = translation_for(client, {served}, MAX_OUTPUT)
    assert found is not None
    body: dict[str, Any] = {"model": MODEL, "messages": HI}
    if client == MESSAGES:
        body["max_tokens"] = 9
    with pytest.raises(InvalidError, match=named):
        found.request(body | fields)


PDF = "https://example.com/a.pdf"
LINKED = {
    MESSAGES: {"type": "document", "source": {"type": "url", "url": PDF}},
    RESPONSES: {"type": "input_file", "file_url": PDF},
}


@pytest.mark.parametrize(
    ("pair", "part"),
    [
        ("messages_to_gemini", {"fileData": {"fileUri": PDF, "mimeType": "application/pdf"}}),
        ("responses_to_gemini", {"fileData": {"fileUri": PDF, "mimeType": "application/pdf"}}),
        ("responses_to_messages", LINKED[MESSAGES]),
        ("messages_to_chat", None),
        ("responses_to_chat", None),
        ("responses_to_converse", None),
    ],
)
def test_a_document_by_url_is_sent_where_the_provider_reads_urls(
    pair: str, part: dict[str, Any] | None
) -> None:
    client, provider = PAIRS[pair]
    turns = [{"role": "user", "content": [LINKED[client]]}]
    name = "messages" if client == MESSAGES else "input"
    body: dict[str, Any] = {"model": MODEL, "max_tokens": 9, name: turns}
    if client == RESPONSES:
        del body["max_tokens"]
    if part is None:
        with pytest.raises(InvalidError, match="cannot carry"):
            translation(pair).request(body)
        return
    made = translation(pair).request(body)
    check_request(provider, made)
    turn = (made.get("contents") or made["messages"])[0]
    assert (turn.get("parts") or turn["content"]) == [part]
