"""The selection of a translation, and the refusal of what a provider's API cannot carry."""

from typing import Any

import pytest

from toolbus_common.contracts.model_calls import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    MODEL_METHODS,
    RESPONSES,
)
from toolbus_common.errors import InvalidError
from toolbus_executor.providers.translation.select import translation_for

HI = [{"role": "user", "content": "Hi"}]
INCOMPLETE = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "["}}
UPLOADED = {"type": "input_image", "file_id": "file-1"}
FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize("method", sorted(MODEL_METHODS))
def test_an_api_that_the_provider_serves_needs_no_translation(method: str) -> None:
    assert translation_for(method, {method, CHAT}, 9) is None


@pytest.mark.parametrize(
    ("client", "served", "provider"),
    [
        (MESSAGES, {CHAT, EMBEDDINGS}, CHAT),
        (MESSAGES, {CHAT, RESPONSES}, CHAT),
        (CHAT, {MESSAGES, COUNT_TOKENS}, MESSAGES),
        (RESPONSES, {CHAT}, CHAT),
        (RESPONSES, {CHAT, MESSAGES}, CHAT),
        (RESPONSES, {MESSAGES}, MESSAGES),
    ],
)
def test_a_direct_translation_is_preferred(client: str, served: set[str], provider: str) -> None:
    found = translation_for(client, served, 4096)
    assert found is not None
    assert found.provider_method == provider


@pytest.mark.parametrize(
    ("client", "served"),
    [
        (EMBEDDINGS, {MESSAGES}),
        (COUNT_TOKENS, {CHAT}),
        (CHAT, {RESPONSES}),
        (MESSAGES, {EMBEDDINGS}),
        (CHAT, set()),
    ],
)
def test_the_error_names_the_apis_that_the_provider_serves(client: str, served: set[str]) -> None:
    with pytest.raises(InvalidError) as caught:
        translation_for(client, served, 4096)
    for each in (client, *served):
        assert f"'{each}'" in caught.value.reason


def test_the_limit_of_output_tokens_is_sent_in_the_field_that_the_provider_knows() -> None:
    for served, field in (({CHAT}, "max_tokens"), ({CHAT, RESPONSES}, "max_completion_tokens")):
        made = translate(MESSAGES, served, {"model": "m", "messages": HI, "max_tokens": 7})
        assert {name: made[name] for name in made if "tokens" in name} == {field: 7}


def test_a_request_without_a_limit_gets_the_default_of_the_caller() -> None:
    found = translation_for(CHAT, {MESSAGES}, 123)
    assert found is not None
    assert found.request({"model": "m", "messages": HI})["max_tokens"] == 123


@pytest.mark.parametrize(
    ("limits", "sent"),
    [
        ({"max_tokens": 0}, 0),
        ({"max_tokens": 9, "max_completion_tokens": 5}, 5),
        ({"max_tokens": 3, "max_completion_tokens": None}, 3),
    ],
)
def test_a_translated_limit_never_exceeds_the_limit_of_the_client(
    limits: dict[str, Any], sent: int
) -> None:
    body = {"model": "m", "messages": HI, **limits}
    assert translate(CHAT, {MESSAGES}, body)["max_tokens"] == sent


def translate(client: str, served: set[str], body: dict[str, Any]) -> dict[str, Any]:
    found = translation_for(client, served, 4096)
    assert found is not None
    return found.request(body)


def content(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def assistant(**fields: Any) -> dict[str, Any]:
    return {"messages": [*HI, {"role": "assistant", **fields}]}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"n": 2}, "'n'"),
        ({"temperature": 1.5}, "'temperature'"),
        ({"presence_penalty": 0.5}, "'presence_penalty'"),
        ({"logit_bias": {"1": 5}}, "'logit_bias'"),
        ({"logprobs": True}, "'logprobs'"),
        ({"modalities": ["text", "audio"]}, "'modalities'"),
        ({"web_search_options": {"user_location": None}}, "'web_search_options'"),
        ({"functions": [{"name": "f"}]}, "'functions'"),
        ({"response_format": {"type": "json_object"}}, "'json_object'"),
        ({"reasoning_effort": "huge"}, "'huge'"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "'custom'"),
        ({"tools": [FUNCTION], "tool_choice": "always"}, "'always'"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "'function'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "'tool_call_id'"),
        (assistant(function_call={"name": "f", "arguments": "{}"}), "'function_call'"),
        (assistant(audio={"id": "a"}), "'audio'"),
        (content({"type": "input_audio", "input_audio": {}}), "'input_audio'"),
        (content({"type": "file", "file": {"file_id": "f1"}}), "'file'"),
        (content({"type": "image_url", "image_url": {"url": "data:,x"}}), "data URL"),
        (assistant(tool_calls=[INCOMPLETE]), "'f'"),
    ],
)  # fmt: skip
def test_a_chat_client_is_refused_what_the_messages_api_cannot_carry(
    fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidError, match=named):
        translate(CHAT, {MESSAGES}, {"model": "m", "messages": HI} | fields)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"top_k": 5}, "'top_k'"),
        ({"container": "c1"}, "'container'"),
        ({"mcp_servers": [{"name": "s"}]}, "'mcp_servers'"),
        ({"inference_geo": "eu"}, "'inference_geo'"),
        ({"max_tokens": None}, "max_tokens"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "'web_search_20250305'"),
        ({"tools": [{"name": "f"}], "tool_choice": {"type": "x"}}, "'x'"),
        ({"system": [{"type": "image"}]}, "'image'"),
        ({"output_config": {"format": {"type": "grammar"}}}, "'grammar'"),
        (content({"type": "image", "source": {"type": "file", "file_id": "f"}}), "'file'"),
        (content({"type": "document", "source": {"type": "url", "url": "u"}}), "'url'"),
        (content({"type": "container_upload", "file_id": "f"}), "'container_upload'"),
        (assistant(content=[{"type": "server_tool_use", "id": "s"}]), "'server_tool_use'"),
    ],
)  # fmt: skip
def test_a_messages_client_is_refused_what_the_chat_api_cannot_carry(
    fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidError, match=named):
        translate(MESSAGES, {CHAT}, {"model": "m", "max_tokens": 9, "messages": HI} | fields)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"previous_response_id": "resp_1"}, "'previous_response_id'"),
        ({"conversation": "c"}, "'conversation'"),
        ({"prompt": {"id": "p"}}, "'prompt'"),
        ({"background": True}, "'background'"),
        ({"include": ["file_search_call.results"]}, "'file_search_call.results'"),
        ({"top_logprobs": 2}, "'top_logprobs'"),
        ({"tools": [{"type": "code_interpreter"}]}, "'code_interpreter'"),
        ({"tool_choice": {"type": "mcp"}}, "'mcp'"),
        ({"tool_choice": "always"}, "'always'"),
        ({"text": {"format": {"type": "grammar"}}}, "'grammar'"),
        ({"input": [{"type": "item_reference", "id": "i"}]}, "'item_reference'"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "'call_id'"),
        ({"input": [{"type": "function_call_output", "output": ""}]}, "'call_id'"),
        ({"input": [{"role": "critic", "content": ""}]}, "'critic'"),
        ({"input": [{"role": "user", "content": [UPLOADED]}]}, "'input_image'"),
    ],
)  # fmt: skip
def test_a_responses_client_is_refused_what_the_chat_api_cannot_carry(
    fields: dict[str, Any], named: str
) -> None:
    for served in ({CHAT}, {MESSAGES}):
        with pytest.raises(InvalidError, match=named):
            translate(RESPONSES, served, {"model": "m", "input": "Hi"} | fields)


def test_empty_values_of_unknown_fields_are_dropped() -> None:
    body = {"model": "m", "messages": HI, "functions": [], "audio": None, "unknown": False}
    assert set(translate(CHAT, {MESSAGES}, body)) == {"model", "max_tokens", "messages"}
