"""The models API over HTTP and the bus: responses, fallbacks, credentials, and lists."""

import json
import time
from typing import Any

import pytest

from harness.services.model_edge import (
    DECLARED,
    LARGEST_BODY,
    NARROW,
    ORIGIN,
    SECRET,
    OpenEdge,
    answers,
    fails,
)
from harness.waits import until_async
from toolbus_common.contracts import Listing, ServerState
from toolbus_common.contracts.model_calls import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    ModelCall,
    decode_model_call,
)
from toolbus_common.errors import (
    BudgetExceededError,
    ModelRefusedError,
    RateExceededError,
)
from toolbus_common.nats.topology import CATALOGUE

TRACE = "0af7651916cd43dd8448eb211c80319c"
DOWN = ModelRefusedError("Down.", status=503)


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/responses", RESPONSES),
        ("/v1/embeddings", EMBEDDINGS),
        ("/v1/messages", MESSAGES),
        ("/v1/messages/count_tokens", COUNT_TOKENS),
    ],
)
async def test_a_request_becomes_one_governed_call(
    model_edge: OpenEdge, path: str, method: str
) -> None:
    async with model_edge(local=answers(b'{"id":"r1","x":1.10}')) as served:
        body = {"model": "fast", "max_tokens": 7, "unknown": {"a": [1.5]}, "tools": [{}]}
        response = await served.send(path, body, x_toolbus_models="f*", x_toolbus_tools="docs__*")
    (call,) = served.calls
    assert response.content == b'{"id":"r1","x":1.10}'
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-toolbus-model"] == "local/gemma"
    assert response.headers["x-toolbus-call-id"] == call.call_id
    assert "x-toolbus-fallbacks" not in response.headers
    assert (call.server, call.tool, call.method) == ("local", "gemma", method)
    assert call.arguments == json.dumps(body).encode()
    assert call.restriction == (("f*",),)
    assert 300 < call.deadline - time.time() <= 600
    output = 0 if method in (EMBEDDINGS, COUNT_TOKENS) else 7 if method != RESPONSES else None
    assert decode_model_call(call.extra) == ModelCall("fast", output=output, tools=1)


async def test_trace_and_session_name_the_run(model_edge: OpenEdge) -> None:
    async with model_edge() as served:
        body = {"model": "local/gemma"}
        await served.send("/v1/messages", body, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
        await served.send("/v1/messages", body, x_toolbus_session="s-1")
        await served.send("/v1/messages", body, x_toolbus_session="s" * 200)
    runs = [call.run for call in served.calls]
    assert runs == [TRACE, "s-1", ""]
    assert served.calls[0].traceparent.startswith(f"00-{TRACE}-")
    assert all(decode_model_call(call.extra).alias == "" for call in served.calls)


async def test_the_next_target_is_tried_after_a_failure(model_edge_on_both: OpenEdge) -> None:
    async with model_edge_on_both(local=fails(DOWN), claude=answers(b'{"ok":1}')) as served:
        response = await served.post()
        streamed = await served.post(stream=True)
    first, second = served.calls[:2]
    assert (response.status_code, response.content) == (200, b'{"ok":1}')
    assert response.headers["x-toolbus-model"] == "claude/haiku"
    assert response.headers["x-toolbus-fallbacks"] == "1"
    assert response.headers["x-toolbus-call-id"] == second.call_id != first.call_id
    assert (first.parent_id, second.parent_id) == ("", first.call_id)
    assert [decode_model_call(call.extra).attempt for call in (first, second)] == [0, 1]
    assert second.arguments == first.arguments
    assert streamed.headers["x-toolbus-fallbacks"] == "1"


async def test_the_error_of_the_last_target_is_returned(model_edge: OpenEdge) -> None:
    limited = ModelRefusedError("Slower.", status=429, retry_after=7)
    async with model_edge(local=fails(DOWN), claude=fails(limited)) as served:
        response = await served.post("/v1/messages")
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    assert response.json()["error"] == {"type": "rate_limit_error", "message": "Slower."}
    assert response.headers["x-toolbus-fallbacks"] == "1"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BudgetExceededError("Spent."), 402),
        (RateExceededError("Too fast.", retry_after=2), 429),
        (ModelRefusedError("Bad.", status=400), 400),
    ],
)
async def test_a_decision_is_final_for_all_targets(
    model_edge: OpenEdge, error: Any, status: int
) -> None:
    async with model_edge(local=fails(error)) as served:
        response = await served.post()
    assert (response.status_code, len(served.calls)) == (status, 1)


async def test_credentials_are_those_of_mcp_and_x_api_key(model_edge: OpenEdge) -> None:
    async with model_edge() as served:
        bearer = served.headers()["authorization"].removeprefix("Bearer ")

        async def status(**headers: str) -> int:
            return (
                await served.client.post(
                    "/v1/messages",
                    content=b'{"model":"local/gemma"}',
                    headers={
                        "content-type": "application/json",
                        **{name.replace("_", "-"): value for name, value in headers.items()},
                    },
                )
            ).status_code

        assert await status(x_api_key=bearer) == 200
        assert await status(authorization=f"Bearer {bearer}") == 200
        assert await status(authorization=f"Bearer {bearer}", x_api_key=bearer) == 200
        assert await status(authorization=f"Bearer {bearer}", x_api_key=NARROW) == 401
        assert await status(authorization=f"Basic {bearer}") == 401
        assert await status(x_api_key="tbk_unknown") == 401
        assert await status(x_api_key="") == 401
        assert (await served.send("/v1/messages?beta=true", {"model": "fast"})).is_success
        assert await status() == 401
        assert len(served.calls) == 4


async def test_a_hidden_model_is_unknown(model_edge: OpenEdge) -> None:
    async with model_edge() as served:
        texts = set()
        for name in ("hidden", "claude/haiku", "gone/x", "nothing"):
            response = await served.post(model=name)
            assert response.status_code == 404
            assert response.json()["error"]["code"] == "model_not_found"
            texts.add(response.text.replace(name, ""))
    assert len(texts) == 1
    assert served.calls == []


async def test_the_list_shows_only_models_of_the_key(model_edge: OpenEdge) -> None:
    async with model_edge() as served:
        found = await served.client.get("/v1/models", headers=served.headers())
        one = await served.client.get("/v1/models/local/gemma", headers=served.headers())
        hidden = await served.client.get("/v1/models/hidden", headers=served.headers())
        narrow = await served.client.get(
            "/v1/models", headers={"x-api-key": NARROW, "anthropic-version": "2023-06-01"}
        )
        nothing = await served.client.get("/v1/models")
        escaped = await served.client.get("/v1/models/local%2Fgemma", headers=served.headers())
    assert [each["id"] for each in found.json()["data"]] == ["fast", "local/gemma"]
    assert found.json()["data"][1] == {
        "id": "local/gemma", "object": "model", "created": 0, "owned_by": "local",
    }  # fmt: skip
    assert one.json() == escaped.json() == found.json()["data"][1]
    assert (hidden.status_code, hidden.json()["error"]["code"]) == (404, "model_not_found")
    assert narrow.json()["data"][0]["display_name"] == "claude/haiku"
    assert (narrow.json()["has_more"], narrow.json()["first_id"]) == (False, "claude/haiku")
    assert nothing.status_code == 401


async def test_requests_that_cannot_be_read_are_rejected_in_the_form_of_the_api(
    model_edge: OpenEdge,
) -> None:
    async with model_edge() as served:
        post, own = served.client.post, served.headers()
        malformed = await post("/v1/messages", content=b"{", headers=own)
        large = await post("/v1/messages", content=b" " * (LARGEST_BODY + 1), headers=own)
        form = await post("/v1/messages", content=b"{}", headers={**own, "content-type": "a/b"})
        chat = await post("/v1/chat/completions", content=b"{}", headers=own)
        verb = await served.client.get("/v1/chat/completions", headers=own)
        listed = await post("/v1/models", content=b"{}", headers=own)
        host = await post("/v1/messages", content=b"{}", headers={**own, "host": "evil.example"})
    statuses = [each.status_code for each in (malformed, large, form, host)]
    assert statuses == [400, 413, 415, 403]
    assert all(each.json()["type"] == "error" for each in (malformed, large, form, host))
    assert large.json()["error"]["type"] == "request_too_large"
    assert (chat.status_code, chat.json()["error"]["param"]) == (400, "model")
    assert (verb.status_code, verb.headers["allow"]) == (405, "POST")
    assert (listed.status_code, listed.headers["allow"]) == (405, "GET")
    assert served.calls == []


async def test_an_overloaded_gateway_answers_in_the_form_of_the_api(model_edge: OpenEdge) -> None:
    async with model_edge() as served:
        served.endpoint.max_in_flight = 0
        chat, messages = await served.post(), await served.post("/v1/messages")
    assert (chat.status_code, messages.status_code) == (503, 503)
    assert chat.json()["error"]["code"] == "overloaded"
    assert messages.json()["error"]["type"] == "overloaded_error"
    assert chat.headers["retry-after"] == "1"
    assert "x-should-retry" not in chat.headers


async def test_scripts_of_listed_origins_may_read_responses(model_edge: OpenEdge) -> None:
    async with model_edge() as served:
        wanted = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-api-key, anthropic-version, x-stainless-os, evil",
        }
        path = "/v1/messages"
        before = await served.client.options(path, headers={"origin": ORIGIN, **wanted})
        response = await served.send(path, {"model": "local/gemma"}, origin=ORIGIN)
        foreign = await served.send(path, {"model": "fast"}, origin="https://evil.example")
    assert before.headers["access-control-allow-headers"] == (
        "x-api-key, anthropic-version, x-stainless-os"
    )
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "X-Toolbus-Model" in response.headers["access-control-expose-headers"]
    assert foreign.status_code == 403


async def test_sticky_requests_start_at_the_same_target(model_edge: OpenEdge) -> None:
    shared = [{"provider": "local", "model": f"m{n}", "weight": 1} for n in range(8)]
    async with model_edge(local=answers(b"{}")) as served:
        served.declare(models={"fast": shared})
        for session in ("a", "b", "c", "d", "e", "f"):
            for _ in range(3):
                await served.send("/v1/messages", {"model": "fast"}, x_toolbus_session=session)
        for _ in range(3):
            await served.post(user="ann")
    tools = [call.tool for call in served.calls]
    groups = [tools[start : start + 3] for start in range(0, len(tools), 3)]
    assert all(len(set(group)) == 1 for group in groups)
    assert len({group[0] for group in groups}) > 1


async def test_models_that_a_provider_lists_are_shown_within_the_grants(
    model_edge: OpenEdge,
) -> None:
    names = ("gemma", "qwen")
    async with model_edge() as served:
        catalogue = await served.made.executor.bus.bucket(CATALOGUE)

        async def ids(key: str) -> list[str]:
            found = await served.client.get("/v1/models", headers={"x-api-key": key})
            return [each["id"] for each in found.json()["data"]]

        async def is_listed(*expected: str) -> bool:
            return await ids(SECRET) == ["fast", *expected]

        providers = {
            "local": {"kind": "openai", "url": "http://127.0.0.1:9/v1"},
            "claude": {"kind": "anthropic", "key": "a-provider-key"},
        }
        served.declare(providers=providers)
        assert await is_listed()
        for name in ("claude", "gone", "local"):
            listing = Listing(server=name, state=ServerState.READY, models=names)
            await catalogue.put(name, listing.encode())
        await until_async(lambda: is_listed("local/gemma", "local/qwen"), "the list")
        assert await ids(NARROW) == ["claude/gemma", "claude/qwen"]
        one = await served.client.get("/v1/models/local/qwen", headers=served.headers())
        assert one.json()["owned_by"] == "local"
        served.declare(providers={**providers, "local": DECLARED["providers"]["local"]})
        assert await is_listed("local/gemma"), "configured names are the list"
        served.declare(providers=providers)
        await catalogue.delete("local")
        await until_async(is_listed, "no list")
