"""Requests to model providers through the executor: responses, streams, keys and charges."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.apis.model_provider import (
    DONE,
    USAGE,
    ModelProvider,
    ModelRequest,
    chunk,
    complete,
    last_chunk,
    stream,
    usage_chunk,
)
from harness.services.model_gateway import RESERVED, ModelGateway, provider
from harness.waits import until, until_async
from toolbus_common.contracts import (
    CallError,
    CallResult,
)
from toolbus_common.contracts.model_calls import MESSAGES
from toolbus_common.observability.trace_context import parent_based
from toolbus_common.observability.tracing import Span
from toolbus_common.observability.tracing.spans import recording
from toolbus_executor.providers import usage


async def test_a_response_passes_unchanged_and_is_charged_by_its_usage(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async with gateway.executor(p=provider(model, key="secret-of-the-provider")):
        body = b'{"messages": [{"content":"\\u00fc"}], "model":"team", "unknown": [1.50]}'
        reply = await gateway.call("1", body=body)
        (request,) = model.requests
        assert request.path == "/v1/chat/completions"
        assert request.headers["authorization"] == "Bearer secret-of-the-provider"
        assert request.json["model"] == "m"
        assert b'[{"content":"\\u00fc"}]' in request.body
        assert b"[1.50]" in request.body
        assert json.loads(reply.body)["choices"][0]["message"]["content"] == "Hello there"
        outcome = await gateway.outcome("1")
        assert (outcome["event"], outcome["charge"]) == ("call.completed", 10 + 4 * 2 + 7)
        used = await gateway.event("1", "model.used")
        assert (used["server"], used["tool"], used["alias"]) == ("p", "m", "team")
        assert (used["input_tokens"], used["output_tokens"]) == (10, 4)
        assert (used["finish_reason"], used["charge"], used["cut"]) == ("stop", 25, False)
        assert used["tools_offered"] == 2


async def test_a_stream_passes_as_it_arrives_without_the_usage_that_toolbus_requested(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    sent: list[ModelRequest] = []

    async def answer(request: ModelRequest) -> None:
        await request.begin_stream()
        await request.send(chunk("Hello"))
        sent.append(request)
        await until(lambda: gateway.chunks("1"), "the first part, before the second was sent")
        for part in (chunk(" there"), last_chunk(), usage_chunk(), DONE):
            await request.send(part)
        await request.end_stream()

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        reply = await gateway.call("1", streamed=True)
        assert reply == CallResult(b"", parts=4)
        assert sent[0].json["stream_options"] == {"include_usage": True}
        assert "authorization" not in sent[0].headers
        assert gateway.chunks("1") == chunk("Hello") + chunk(" there") + last_chunk() + DONE
        assert (await gateway.outcome("1"))["charge"] == 25
        used = await gateway.event("1", "model.used")
        assert (used["streamed"], used["estimated"]) == (True, False)
        assert 0 < used["first_token_us"] <= used["latency_us"]


async def test_the_client_receives_the_usage_that_it_requested(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    model.answer = stream
    async with gateway.executor(p=provider(model)):
        body = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
        await gateway.call("1", streamed=True, body=body)
        assert usage_chunk() in gateway.chunks("1")


async def test_connections_are_reused_after_responses_and_streams(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await (stream if request.json.get("stream") else complete)(request)

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        for number in range(6):
            await gateway.call(str(number), streamed=number % 2 == 1)
        assert model.connections < 6


async def test_a_cancelled_stream_is_closed_at_the_provider_and_charged_by_what_was_used(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.begin_stream()
        for _ in range(3):
            await request.send(chunk("eight by"))
        await request.closed.wait()

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        await gateway.begin("1", streamed=True)
        await until(lambda: gateway.chunks("1").count(b"eight by") == 3, "all parts")
        await gateway.cancel("1")
        reply = await gateway.end("1")
        assert isinstance(reply, CallError)
        assert reply.error.code == "cancelled"
        await until(model.requests[0].closed.is_set, "the end of the provider's connection")
        given = -(-len(model.requests[0].body) // 4)
        outcome = await gateway.outcome("1")
        assert (outcome["event"], outcome["code"]) == ("call.failed", "cancelled")
        assert (outcome["sent"], outcome["reserved"]) == (True, True)
        assert outcome["charge"] == given + 6 * 2 + 7
        used = await gateway.event("1", "model.used")
        assert (used["cut"], used["estimated"]) == (True, True)
        assert (used["input_tokens"], used["output_tokens"]) == (given, 6)
        (row,) = await gateway.rows()
        assert (row["in_flight"], row["breaker"], row["failures"]) == (0, "closed", [])


async def test_a_rejected_key_is_paused_and_the_request_is_sent_with_another_key(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        if request.headers["x-api-key"] == "good-key":
            usage = {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 3}
            await request.reply({"content": [], "stop_reason": "end_turn", "usage": usage})
        else:
            await request.reply({"error": {"message": "bad key"}}, 401)

    model.answer = answer
    keys = {"bad": "bad-key", "good": "good-key"}
    weights = {"bad": 100}
    declared = provider(model, kind="anthropic", credentials=keys, weights=weights)
    async with gateway.executor(p=declared):
        for number in range(20):  # the bad key is chosen first with a probability of 1 - 1/101^20
            reply = await gateway.call(str(number), method=MESSAGES)
            assert isinstance(reply, CallResult)
        used = [request.headers["x-api-key"] for request in model.requests]
        assert (used.count("bad-key"), used.count("good-key")) == (1, 20)
        assert model.requests[0].path == "/v1/messages"
        assert model.requests[0].headers["anthropic-version"] == "2023-06-01"
        (row,) = await gateway.rows()
        assert (row["kind"], row["paused_keys"]) == ("anthropic", ["bad"])
        assert (await gateway.outcome("3"))["charge"] == 5 + 1 + 6 + 7


async def test_a_refused_key_is_paused_and_hidden_and_the_next_request_is_sent(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        error = {"message": "Too many for key top-secret-key.", "type": "rate_limit_error"}
        await request.reply({"error": error}, 429, retry_after="120")

    model.answer = answer
    async with gateway.executor(p=provider(model, key="top-secret-key")):
        error = await gateway.error("1")
        assert (error.code, error.data["status"]) == ("model_refused", 429)
        assert (error.data["type"], error.data["retry_after"]) == ("rate_limit_error", 120)
        assert "top-secret-key" not in error.reason
        assert error.reason.startswith("Too many for key ")
        again = await gateway.error("2")
        assert (again.code, again.data["status"]) == ("model_refused", 429)
        assert len(model.requests) == 2, "one caller cannot block the others"
        outcomes = [await gateway.outcome(number) for number in ("1", "2")]
        assert [(each["charge"], each["sent"]) for each in outcomes] == [(0, True), (0, True)]
        assert "Too many" not in json.dumps(gateway.events), "recorded only with the content"
        (row,) = await gateway.rows()
        assert row["breaker"] == "closed"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"this is not JSON", "upstream_invalid"),
        (b"[]", "upstream_invalid"),
        (b" " * (8 << 20), "upstream_invalid"),
        (b'{"usage":' * 100_000, "upstream_invalid"),
    ],
    ids=["text", "array", "huge", "deep"],
)
async def test_an_unusable_response_is_an_error(
    gateway: ModelGateway, model: ModelProvider, body: bytes, code: str
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply(body)

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        assert (await gateway.error("1")).code == code
        assert (await gateway.outcome("1"))["charge"] == RESERVED


@pytest.mark.parametrize(
    "reported",
    [{"prompt_tokens": -5, "completion_tokens": "9" * 30}, {"prompt_tokens": [1]}, [], "many"],
)
async def test_a_hostile_usage_is_estimated(
    gateway: ModelGateway, model: ModelProvider, reported: Any
) -> None:
    async def answer(request: ModelRequest) -> None:
        message = {"content": "eight by"}
        await request.reply({"choices": [{"message": message}], "usage": reported})

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        await gateway.call("1")
        used = await gateway.event("1", "model.used")
        given = -(-len(model.requests[0].body) // usage.BYTES_PER_TOKEN)
        assert (used["input_tokens"], used["output_tokens"]) == (given, 2)
        assert used["estimated"] is True


async def test_a_cancellation_before_the_call_reaches_no_provider(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async with gateway.executor(p=provider(model)):
        await gateway.cancel("1")
        error = await gateway.error("1")
        assert (error.code, model.requests) == ("cancelled", [])
        assert (await gateway.outcome("1"))["charge"] == 0


async def test_a_changed_provider_does_not_end_a_stream_in_progress(
    gateway: ModelGateway, model: ModelProvider, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"

    async def answer(request: ModelRequest) -> None:
        if not request.json["stream"]:
            await complete(request)
            return
        await request.begin_stream()
        await request.send(chunk("before"))
        await until(changed.exists, "the change")
        for part in (chunk("after"), last_chunk(), DONE):
            await request.send(part)
        await request.end_stream()

    model.answer = answer
    async with gateway.executor(p=provider(model), q=provider(model)):
        await gateway.begin("1", streamed=True)
        await until(lambda: gateway.chunks("1"), "the first part")
        await gateway.configure(p=provider(model, concurrency=3), q=provider(model))

        async def has_changed() -> bool:
            return (await gateway.rows())[0].get("slots") == 3

        await until_async(has_changed, "the changed provider")
        assert isinstance(await gateway.call("2"), CallResult)
        changed.touch()
        assert await gateway.end("1") == CallResult(b"", parts=4)
        assert b"after" in gateway.chunks("1")


async def test_a_provider_that_ignores_the_request_for_a_stream_is_charged_by_its_usage(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async with gateway.executor(p=provider(model)):
        reply = await gateway.call("1", streamed=True)
        assert json.loads(reply.body)["usage"] == USAGE
        assert (await gateway.outcome("1"))["charge"] == 25


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_to_another_api_is_translated(
    gateway: ModelGateway,
    model: ModelProvider,
    streamed: bool,  # noqa: FBT001
) -> None:
    model.answer = stream if streamed else complete
    async with gateway.executor(p=provider(model)):
        body = {"max_tokens": 9, "messages": [{"role": "user", "content": "a"}], "stream": streamed}
        reply = await gateway.call("1", method=MESSAGES, body=body, streamed=streamed)
        (request,) = model.requests
        assert request.path == "/v1/chat/completions"
        assert (request.json["model"], request.json["max_tokens"]) == ("m", 9)
        result = gateway.chunks("1") if streamed else reply.body
        assert b"Hello" in result
        assert (b"event: message_stop" in result) is streamed
        assert (await gateway.outcome("1"))["charge"] == 25
        assert (await gateway.event("1", "model.used"))["method"] == MESSAGES


class SpanList(list[Span]):
    """A sink that stores the ended spans."""

    def take(self, span: Span) -> None:
        """Store a span."""
        self.append(span)


async def test_a_traced_request_has_a_span_with_its_usage_and_the_provider_its_parent(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    spans = SpanList()
    async with gateway.executor(p=provider(model)):
        with recording.to(spans, parent_based):
            assert isinstance(await gateway.call("1"), CallResult)
        (span,) = [each for each in spans if each.name == "chat m"]
        assert model.requests[0].headers["traceparent"] == span.traceparent
        assert span.attributes["gen_ai.usage.input_tokens"] == 10
        assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)


async def test_a_provider_has_as_many_slots_as_it_is_configured_with(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await until(lambda: len(model.requests) == 40, "all requests at the same time")
        await complete(request)

    model.answer = answer
    async with gateway.executor(p=provider(model, concurrency=40)):
        for number in range(40):
            await gateway.begin(str(number))
        for number in range(40):
            assert isinstance(await gateway.end(str(number)), CallResult)
