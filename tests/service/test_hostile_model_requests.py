"""Hostile and unusual requests to the models API, at ingress: each is answered in its dialect."""

import json
from typing import Any

import pytest

from harness.services.model_edge import OpenEdge, answers, streams

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
PATHS = (CHAT, RESPONSES, EMBEDDINGS, MESSAGES, COUNT)
TEXT: list[Any] = [{"role": "user", "content": "hello"}]
FUNCTION = {"name": "f", "parameters": {"type": "object"}}

# Members that SDKs send and that Toolbus does not know.
CLIENT_FIELDS: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"n": 3, "logprobs": True, "top_logprobs": 5, "logit_bias": {"5": -100}}),
    (CHAT, {"stream_options": {"include_usage": True, "include_obfuscation": False}}),
    (CHAT, {"tools": [{"type": "function", "function": FUNCTION}], "parallel_tool_calls": False}),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
    (CHAT, {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}),
    (CHAT, {"prediction": {"type": "content", "content": "x"}, "verbosity": "low", "store": True}),
    (CHAT, {"functions": [FUNCTION], "function_call": {"name": "f"}}),
    (RESPONSES, {"previous_response_id": "resp_1", "include": ["reasoning.encrypted_content"]}),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}),
    (RESPONSES, {"text": {"format": {"type": "json_object"}}, "truncation": "auto"}),
    (RESPONSES, {"reasoning": {"effort": "low", "summary": "auto"}, "max_tool_calls": 3}),
    (EMBEDDINGS, {"input": [[1, 2], [3]], "encoding_format": "base64", "dimensions": 8}),
    (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 1024}, "top_k": 5}),
    (MESSAGES, {"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}),
    (MESSAGES, {"mcp_servers": [], "container": None, "context_management": {"edits": []}}),
    (COUNT, {"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "any"}}),
]  # fmt: skip


UNKNOWN_PATHS = [
    ("POST", "/v1/batches", "It serves POST /v1/chat/completions"),
    ("GET", "/v1/batches/batch_1", "It serves POST"),
    ("POST", "/v1/files", "It serves POST"),
    ("POST", "/v1/completions", "It serves POST"),
    ("POST", "/v1/images/generations", "It serves POST"),
    ("POST", "/v1/audio/transcriptions", "It serves POST"),
    ("POST", "/v1/moderations", "It serves POST"),
    ("GET", "/v1/responses/resp_1", "It serves POST"),
    ("DELETE", "/v1/responses/resp_1", "It serves POST"),
    ("POST", "/v1/messages/batches", "It serves POST"),
    ("GET", "/v1/messages/batches/b_1/results", "It serves POST"),
    ("POST", "/v1/chat/completions/", "It serves POST"),
    ("POST", "/v1/v1/messages", "Remove /v1 from the end"),
    ("POST", "/chat/completions", "ends with /v1"),
    ("GET", "/models", "ends with /v1"),
    ("POST", "/messages", "Request /v1/messages"),
    ("POST", "/v1/" + "x" * 3000, "It serves POST"),
]
MALFORMED = [
    b'{"model":["fast"]}',
    b'{"model":{"a":1}}',
    b'{"model":"fast","stream":"true"}',
    b'{"model":"fast","tools":{"a":1}}',
    b'{"model":"fast","x":"\xff"}',
    b'\xef\xbb\xbf{"model":"fast"}',
    '{"model":"fast"}'.encode("utf-16"),
    b'{"model":"fast"}{"model":"hidden"}',
    b'{"model":"fast","x":Infinity}',
    b'{"model":"fast","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    b'{"model":"fast","tools":[' + b'{"x":' * 9_000 + b"1" + b"}" * 9_000 + b"]}",
    b'[{"model":"fast"}]',
    b"model=fast",
    b"",
]


async def test_members_that_toolbus_does_not_know_pass_unchanged(model_edge: OpenEdge) -> None:
    async with model_edge(local=answers(b"{}")) as served:
        for path, fields in CLIENT_FIELDS:
            body = {"model": "local/gemma", "messages": TEXT, **fields}
            assert (await served.send(path, body)).status_code == 200, fields
            assert served.calls[-1].arguments == json.dumps(body).encode()
    assert len(served.calls) == len(CLIENT_FIELDS)


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_of_a_wrong_form_is_refused_in_the_dialect(
    model_edge: OpenEdge, path: str
) -> None:
    async with model_edge() as served:
        for body in MALFORMED:
            response = await served.client.post(path, content=body, headers=served.headers())
            error = checked(response.json(), path)
            assert (response.status_code, error["type"]) == (400, "invalid_request_error"), body
            assert error["message"].endswith(".")
    assert served.calls == []


async def test_the_last_of_repeated_names_is_the_model_that_is_authorized(
    model_edge: OpenEdge,
) -> None:
    names = (b'"model":"%b"', b'"m\\u006fdel":"%b"')
    async with model_edge(local=answers(b"{}")) as served:
        for first, last in (names, names[::-1]):
            for before, after, status in ((b"hidden", b"fast", 200), (b"fast", b"hidden", 404)):
                raw = b"{%b,%b}" % (first % before, last % after)
                found = await served.client.post(CHAT, content=raw, headers=served.headers())
                assert found.status_code == status
    assert [(call.server, call.tool) for call in served.calls] == [("local", "gemma")] * 2


async def test_an_unknown_path_is_an_error_of_the_dialect_that_says_what_to_request(
    model_edge: OpenEdge,
) -> None:
    async with model_edge() as served:
        for method, path, fix in UNKNOWN_PATHS:
            response = await served.client.request(method, path, headers=served.headers())
            error = checked(response.json(), path)
            assert (response.status_code, error["type"]) == (404, "not_found_error"), path
            assert fix in error["message"]
            assert f"{method} {path[:100]}. " in error["message"]
            assert len(error["message"]) < 400


async def test_an_unknown_path_of_a_client_of_anthropic_has_its_form(model_edge: OpenEdge) -> None:
    async with model_edge() as served:
        own = served.headers(anthropic_version="2023-06-01")
        response = await served.client.get("/v1/files", headers=own)
    assert (response.status_code, response.json()["type"]) == (404, "error")


async def test_the_rest_apis_below_v1_keep_their_errors(model_edge: OpenEdge) -> None:
    async with model_edge() as served:
        tools = await served.client.get("/v1/mcp/tools")
        host = await served.client.get("/v1/agent/runs", headers={"host": "evil.example"})
    assert (tools.status_code, tools.json()["status"]) == (401, 401)
    assert (host.status_code, host.json()["status"]) == (403, 403)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"], ids=["lf", "crlf"])
async def test_a_stream_has_the_same_bytes_wherever_its_parts_are_cut(
    model_edge: OpenEdge, end: bytes
) -> None:
    events = (
        b": comment",
        b'data: {"n":"\xc3\xa9"}',
        b"event: e\ndata: 1\ndata: 2",
        b"data: [DONE]",
    )
    whole = end.join((*events, b""))
    async with model_edge() as served:
        for at in range(1, len(whole)):
            served.providers["local"] = streams(whole[:at], whole[at:])
            assert (await served.post(stream=True)).content == whole, at


def checked(body: Any, path: str) -> dict[str, Any]:
    """Return the error of a body, which has the form of the API of the path."""
    is_anthropic = "/messages" in path
    assert body.get("type") == ("error" if is_anthropic else None)
    error: dict[str, Any] = body["error"]
    assert error.keys() == (
        {"type", "message"} if is_anthropic else {"message", "type", "param", "code"}
    )
    return error
