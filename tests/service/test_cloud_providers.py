"""Requests to Gemini, Vertex AI and Amazon Bedrock through the executor."""

import json
from typing import Any

import pytest

from harness.apis import cloud_providers as clouds
from harness.apis.cloud_providers import BODIES, HI, cloud_provider
from harness.apis.model_provider import ModelProvider, ModelRequest
from harness.clients.model_sdks import accumulated, check_response
from harness.services.model_gateway import RESERVED, ModelGateway
from toolbus_common.contracts.model_calls import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
)
from toolbus_common.errors import ModelRefusedError, UpstreamDeadError

# 10 tokens of input, 4 of output (one of them reasoning), and the price of a request.
COSTS = {"gemini": 10 + 3 * 2 + 3 + 7, "vertex": 10 + 3 * 2 + 3 + 7, "bedrock": 8 + 1 + 4 * 2 + 7}


@pytest.mark.parametrize("kind", ["gemini", "vertex", "bedrock"])
async def test_every_client_is_served_by_every_kind_and_charged_by_its_usage(
    kind: str, gateway: ModelGateway, model: ModelProvider
) -> None:
    model.answer = clouds.bedrock if kind == "bedrock" else clouds.gemini
    async with gateway.executor(p=cloud_provider(kind, model)):
        for method, body in BODIES.items():
            number = f"{kind}-{method[-4:]}"
            reply = await gateway.call(number, method=method, body=body)
            made = json.loads(reply.body)
            check_response(method, made)
            assert "Hello there" in json.dumps(made)
            assert (await gateway.outcome(number))["charge"] == COSTS[kind]
            number += "-streamed"
            await gateway.call(number, method=method, streamed=True, body=body | {"stream": True})
            final = accumulated(method, gateway.chunks(number))
            check_response(method, final)
            assert "Hello there" in json.dumps(final)
            assert (await gateway.outcome(number))["charge"] == COSTS[kind]
            used = await gateway.event(number, "model.used")
            assert (used["input_tokens"], used["output_tokens"]) == (10, 4)
            assert used["first_token_us"] > 0
            assert (used["provider_kind"], used["estimated"]) == (kind, False)
    sent = [each for each in model.requests if not each.path.endswith("/token")]
    assert len(sent) == 6
    for request in sent:
        check_authorization(kind, request)
    # One token serves all requests.
    assert len(model.requests) - len(sent) == (kind == "vertex")


def check_authorization(kind: str, request: ModelRequest) -> None:
    if kind == "gemini":
        assert request.path.startswith("/v1/models/m:")
        assert request.headers["x-goog-api-key"] == "key-of-gemini"
    elif kind == "vertex":
        assert request.path.startswith("/v1/projects/p-1/locations/global/publishers/google/")
        assert request.headers["authorization"] == f"Bearer {clouds.TOKEN}"
    else:
        assert request.path.startswith("/v1/model/m/converse")
        clouds.check_signature(request)


@pytest.mark.parametrize("kind", ["gemini", "vertex", "bedrock"])
async def test_tokens_are_counted_and_texts_embedded(
    kind: str, gateway: ModelGateway, model: ModelProvider
) -> None:
    model.answer = clouds.bedrock if kind == "bedrock" else clouds.gemini
    async with gateway.executor(p=cloud_provider(kind, model)):
        body: dict[str, Any] = {"model": "team", "messages": HI, "system": "Be brief."}
        reply = await gateway.call("c", method=COUNT_TOKENS, body=body, charge=0, price=())
        assert json.loads(reply.body) == {"input_tokens": 42}
        if kind == "bedrock":
            return
        body = {"model": "team", "input": ["one", "two"], "dimensions": 2}
        reply = await gateway.call("e", method=EMBEDDINGS, body=body)
        made = json.loads(reply.body)
        assert [each["embedding"] for each in made["data"]] == [[0.5, 1.0]] * 2
        used = await gateway.event("e", "model.used")
        assert (used["input_tokens"], used["estimated"]) == (
            (6, False) if kind == "vertex" else (2, True)
        )


async def test_a_model_of_anthropic_on_vertex_has_its_own_api(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        if request.path.endswith("/token"):
            await clouds.gemini(request)
            return
        usage = {"input_tokens": 10, "output_tokens": 4}
        content = [{"type": "text", "text": "Hello"}]
        await request.reply({"content": content, "stop_reason": "end_turn", "usage": usage})

    model.answer = answer
    async with gateway.executor(p=cloud_provider("vertex", model)):
        body = BODIES[MESSAGES]
        reply = await gateway.call("1", method=MESSAGES, body=body, tool="claude-opus-4-6")
        assert json.loads(reply.body)["content"][0]["text"] == "Hello"
        request = model.requests[-1]
        assert request.path.endswith("/publishers/anthropic/models/claude-opus-4-6:rawPredict")
        assert "model" not in request.json
        assert request.json["anthropic_version"] == "vertex-2023-10-16"


@pytest.mark.parametrize(
    ("kind", "status", "headers", "body", "seen"),
    [
        (
            "gemini", 429, {},
            {"error": {"code": 429, "message": "Quota.", "status": "RESOURCE_EXHAUSTED",
                       "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo",
                                    "retryDelay": "34.5s"}]}},
            {"status": 429, "type": "RESOURCE_EXHAUSTED", "retry_after": 34.5},
        ),
        (
            "gemini", 400, {},
            {"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT",
                       "details": [{"reason": "API_KEY_INVALID"}]}},
            {"status": 401, "type": "INVALID_ARGUMENT"},
        ),
        (
            "bedrock", 429, {"x_amzn_errortype": "ThrottlingException:http://internal.amazon.com/"},
            {"message": "Too many requests"},
            {"status": 429, "type": "ThrottlingException"},
        ),
        (
            "bedrock", 424, {"x_amzn_errortype": "ModelErrorException"},
            {"message": "The model failed"},
            {"status": 502, "type": "ModelErrorException"},
        ),
    ],
    ids=["quota", "invalid key", "throttled", "model error"],
)  # fmt: skip
async def test_errors_have_the_status_the_type_and_the_pause_of_the_provider(
    kind: str,
    status: int,
    headers: dict[str, str],
    body: Any,
    seen: dict[str, Any],
    gateway: ModelGateway,
    model: ModelProvider,
) -> None:
    async def refuse(request: ModelRequest) -> None:
        await request.reply(body, status, **headers)

    model.answer = refuse
    async with gateway.executor(p=cloud_provider(kind, model)):
        error = await gateway.error("1", body=BODIES[CHAT])
        assert isinstance(error, ModelRefusedError)
        assert error.data == seen
        assert (await gateway.outcome("1"))["charge"] == 0


async def test_a_stream_of_bedrock_that_fails_is_charged_by_an_estimate(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def fail(request: ModelRequest) -> None:
        await request.begin_stream("application/vnd.amazon.eventstream")
        events = clouds.converse_events()[:3]
        for name, event in events:
            await request.send(clouds.frame(name, event))
        exception = {"message": "Too many tokens"}
        await request.send(clouds.frame("throttlingException", exception, "exception"))
        await request.end_stream()

    model.answer = fail
    async with gateway.executor(p=cloud_provider("bedrock", model)):
        error = await gateway.error("1", streamed=True, body=BODIES[CHAT] | {"stream": True})
        assert error.reason == "Too many tokens"
        assert b"Hello there" not in gateway.chunks("1")
        assert b"Hello" in gateway.chunks("1")
        assert (await gateway.outcome("1"))["event"] == "call.failed"
        used = await gateway.event("1", "model.used")
        assert used["estimated"]
        assert 0 < used["charge"] < RESERVED


@pytest.mark.parametrize("method", list(BODIES))
@pytest.mark.parametrize("kind", ["gemini", "bedrock"])
async def test_a_stream_that_begins_with_an_error_is_refused_and_free(
    kind: str, method: str, gateway: ModelGateway, model: ModelProvider
) -> None:
    async def fail(request: ModelRequest) -> None:
        if kind == "bedrock":
            await request.begin_stream("application/vnd.amazon.eventstream")
            exception = {"message": "Busy"}
            await request.send(clouds.frame("serviceUnavailableException", exception, "exception"))
        else:
            await request.begin_stream()
            error = {"code": 503, "message": "Busy", "status": "UNAVAILABLE"}
            await request.send(b"data: %b\n\n" % json.dumps({"error": error}).encode())
        await request.end_stream()

    model.answer = fail
    async with gateway.executor(p=cloud_provider(kind, model)):
        body = BODIES[method] | {"stream": True}
        error = await gateway.error("1", method=method, streamed=True, body=body)
        assert isinstance(error, ModelRefusedError)
        assert (error.reason, error.data["status"]) == ("Busy", 503)
        assert gateway.chunks("1") == b""
        outcome = await gateway.outcome("1")
        assert (outcome["event"], outcome["charge"]) == ("call.failed", 0)


@pytest.mark.parametrize("method", list(BODIES))
async def test_a_stream_without_a_finish_reason_fails_although_its_response_is_complete(
    method: str, gateway: ModelGateway, model: ModelProvider
) -> None:
    async def cut(request: ModelRequest) -> None:
        await request.begin_stream()
        event = {"candidates": [{"content": {"parts": [{"text": "Hello"}]}}]}
        await request.send(b"data: %b\n\n" % json.dumps(event).encode())
        await request.end_stream()

    model.answer = cut
    async with gateway.executor(p=cloud_provider("gemini", model)):
        body = BODIES[method] | {"stream": True}
        error = await gateway.error("1", method=method, streamed=True, body=body)
        assert isinstance(error, UpstreamDeadError)
        assert b"Hello" in gateway.chunks("1")
        assert 0 < (await gateway.outcome("1"))["charge"] < RESERVED


async def test_a_stream_of_bedrock_with_a_wrong_checksum_fails(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def corrupt(request: ModelRequest) -> None:
        await request.begin_stream("application/vnd.amazon.eventstream")
        await request.send(clouds.frame("messageStart", {"role": "assistant"})[:-1] + b"\0")
        await request.end_stream()

    model.answer = corrupt
    async with gateway.executor(p=cloud_provider("bedrock", model)):
        error = await gateway.error("1", streamed=True, body=BODIES[CHAT] | {"stream": True})
        assert "invalid event" in error.reason


async def test_a_token_endpoint_in_a_private_network_is_refused_without_a_request(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    model.answer = clouds.gemini
    key = clouds.service_account("http://169.254.169.254/token")
    async with gateway.executor(p=cloud_provider("vertex", model, key=key)):
        error = await gateway.error("1", body=BODIES[CHAT])
        assert isinstance(error, UpstreamDeadError)
        assert (await gateway.outcome("1"))["charge"] == 0
        assert "Google issued no access token" in error.reason
        assert model.requests == []
