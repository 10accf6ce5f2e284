"""Hostile and unusual responses of model providers: other forms, absurd usage, endless streams."""

import json
from typing import Any

import pytest

from harness.apis.model_provider import DONE, ModelProvider, ModelRequest, chunk, last_chunk
from harness.services.model_gateway import RESERVED, ModelGateway, provider
from toolbus_common.contracts import CallError, CallResult
from toolbus_common.contracts.model_calls import CHAT, EMBEDDINGS, MESSAGES, RESPONSES
from toolbus_executor.providers import streamed_response
from toolbus_executor.providers.usage import MAX_TOKENS

OVERLOADED = {"message": "No capacity for key top-secret-key.", "code": 503}
SENT = "No capacity for key "
TURN = {"max_tokens": 9, "messages": [{"role": "user", "content": "a"}]}
INPUT = {"max_output_tokens": 9, "input": "a"}  # the same in the responses API
HELLO = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}}]}


def event(data: Any, name: str = "") -> bytes:
    """Return an event of a stream."""
    head = b"event: %b\n" % name.encode() if name else b""
    return head + b"data: %b\n\n" % json.dumps(data).encode()


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("method", "body"),
    [
        (CHAT, {"error": OVERLOADED}),
        (CHAT, {"id": "gen-1", "choices": [], "error": OVERLOADED, "user_id": "u"}),
        (EMBEDDINGS, {"error": OVERLOADED}),
        (RESPONSES, {"error": OVERLOADED}),
        (MESSAGES, {"error": OVERLOADED}),  # of the chat API, to which it is translated
    ],
)
async def test_an_error_with_the_status_200_is_a_refusal_and_free(
    gateway: ModelGateway,
    model: ModelProvider,
    method: str,
    body: Any,
    streamed: bool,  # noqa: FBT001
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply(body)

    model.answer = answer
    apis = ("chat", "responses", "embeddings") if method != MESSAGES else ("chat",)
    async with gateway.executor(p=provider(model, key="top-secret-key", apis=apis)):
        streams = streamed and method != EMBEDDINGS
        turn = INPUT if method == RESPONSES else TURN
        error = await gateway.error("1", method=method, body=turn, streamed=streams)
        assert (error.code, error.data["status"]) == ("model_refused", 503)
        assert error.reason.startswith(SENT)
        assert "top-secret-key" not in error.reason
        assert (await gateway.outcome("1"))["charge"] == 0


@pytest.mark.parametrize(
    ("method", "first"),
    [
        (CHAT, event({"error": OVERLOADED})),
        (CHAT, event({"choices": [], "error": OVERLOADED}).replace(b"\n", b"\r\n")),
        (RESPONSES, event({"type": "error", **OVERLOADED}, "error")),
        (MESSAGES, event({"type": "error", "error": OVERLOADED}, "error")),
    ],
    ids=["chat", "chat-crlf", "responses", "messages"],
)  # fmt: skip
@pytest.mark.parametrize("before", [b"", b": processing\n\n"], ids=["first", "after-a-comment"])
async def test_an_error_as_the_first_event_of_a_stream_is_not_its_content(
    gateway: ModelGateway, model: ModelProvider, method: str, first: bytes, before: bytes
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.begin_stream()
        if before:
            await request.send(before)
        await request.send(first)
        await request.end_stream()

    model.answer = answer
    kind = "anthropic" if method == MESSAGES else "openai"
    more = {} if method == MESSAGES else {"apis": ("chat", "responses")}
    declared = provider(model, kind=kind, key="top-secret-key", **more)
    async with gateway.executor(p=declared):
        error = await gateway.error("1", method=method, streamed=True)
        assert error.reason.startswith(SENT)
        assert "top-secret-key" not in error.reason
        assert gateway.chunks("1") in (b"", before)
        if not gateway.chunks("1"):  # so another target can serve the request
            assert (error.code, error.data["status"]) == ("model_refused", 503)
            assert (await gateway.outcome("1"))["charge"] == 0


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>Sign in</html>", "text/html"),
        (event(HELLO) + DONE, "text/event-stream"),
        (b'{"choices":[]}\n{"choices":[]}\n', "application/x-ndjson"),
        (b"\xff\xfe{\x00}\x00", "application/json"),
        (b'{"usage":{"prompt_tokens":1e400}}', "application/json"),
        (b"", "application/json"),
    ],
    ids=["page", "stream", "lines", "utf-16", "too-large-a-number", "empty"],
)
async def test_a_response_of_another_form_is_invalid_and_costs_the_reserved_amount(
    gateway: ModelGateway, model: ModelProvider, body: bytes, kind: str
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply(body, content_type=kind)

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        assert (await gateway.error("1")).code == "upstream_invalid"
        assert (await gateway.outcome("1"))["charge"] == RESERVED
        assert not [each for each in gateway.events if each["event"] == "model.used"]


@pytest.mark.parametrize(
    "body",
    [
        {"choices": []},
        {"choices": None, "error": None},
        {"choices": [{"message": {"content": None, "refusal": "no"}, "logprobs": {"content": []}}]},
        {"choices": [{"message": {"audio": {"id": "a", "data": "UklG"}}}, {"index": 1}]},
        {"choices": "many", "usage": "none"},
        {"detail": "fine"},
    ],
    ids=range(6),
)
async def test_a_response_without_usage_passes_unchanged_and_is_estimated(
    gateway: ModelGateway, model: ModelProvider, body: Any
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply(body, content_type="text/plain")

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        reply = await gateway.call("1")
        assert json.loads(reply.body) == body
        used = await gateway.event("1", "model.used")
        assert used["estimated"] is True
        assert 0 < (await gateway.outcome("1"))["charge"] < RESERVED


@pytest.mark.parametrize(
    ("reported", "tokens"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 10**18}, (10, MAX_TOKENS)),
        ({"prompt_tokens": 1e300, "completion_tokens": 1}, (MAX_TOKENS, 1)),
        ({"prompt_tokens": 10, "completion_tokens": -(10**18)}, (10, 0)),
        ({"prompt_tokens": True, "completion_tokens": 4}, (0, 4)),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 10**18}}, (10, 0)),
        ({"prompt_tokens": 10, "completion_tokens_details": "many"}, (10, 0)),
    ],
    ids=range(6),
)
async def test_reported_tokens_are_between_zero_and_a_limit(
    gateway: ModelGateway, model: ModelProvider, reported: Any, tokens: tuple[int, int]
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply({**HELLO, "usage": reported})

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        await gateway.call("1")
        used = await gateway.event("1", "model.used")
        assert (used["input_tokens"], used["output_tokens"]) == tokens
        charge = (await gateway.outcome("1"))["charge"]
        assert 0 <= charge <= MAX_TOKENS * 3 + 7


@pytest.mark.parametrize("piece", [b": ping\n\n", chunk("on and on")], ids=["comments", "text"])
async def test_an_endless_stream_ends_at_the_limit_of_bytes(
    gateway: ModelGateway, model: ModelProvider, monkeypatch: pytest.MonkeyPatch, piece: bytes
) -> None:
    monkeypatch.setattr(streamed_response, "LARGEST_STREAM", 100_000)

    async def answer(request: ModelRequest) -> None:
        await request.begin_stream()
        while not request.closed.is_set():
            await request.send(piece * 100)

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        error = await gateway.error("1", streamed=True)
        assert error.code == "upstream_invalid"
        assert len(gateway.chunks("1")) <= 100_000
        assert (await gateway.event("1", "model.used"))["cut"] is True


async def test_parts_of_a_stream_pass_wherever_they_are_cut(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    usage = event({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 4}})
    whole = (b": c\n\n" + chunk("\u00e9t\u00e9") + last_chunk() + usage + DONE).replace(
        b"\n", b"\r\n"
    )
    cuts = range(1, len(whole), 7)

    async def answer(request: ModelRequest) -> None:
        at = cuts[len(model.requests) - 1]
        await request.begin_stream()
        for part in (whole[:at], whole[at:]):
            await request.send(part)
        await request.end_stream()

    model.answer = answer
    body = {"messages": [], "stream": True, "stream_options": {"include_usage": True}}
    async with gateway.executor(p=provider(model)):
        for number, _ in enumerate(cuts):
            reply = await gateway.call(str(number), streamed=True, body=body)
            assert isinstance(reply, CallResult)
            assert gateway.chunks(str(number)) == whole
            assert (await gateway.outcome(str(number)))["charge"] == 25


async def test_mixed_parts_of_tool_calls_are_refused_where_they_cannot_be_carried(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    def part(index: int, **fields: Any) -> bytes:
        call = {"index": index, "type": "function", **fields}
        return event({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})

    async def answer(request: ModelRequest) -> None:
        await request.begin_stream()
        for index in (1, 0):
            await request.send(part(index, id=f"c{index}", function={"name": f"f{index}"}))
        for index in (1, 0):
            await request.send(part(index, function={"arguments": "{}"}))
        await request.send(last_chunk("tool_calls") + DONE)
        await request.end_stream()

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        plain = await gateway.call("1", streamed=True)
        assert isinstance(plain, CallResult), "the same API carries any order"
        assert (await gateway.event("1", "model.used"))["tools_suggested"] == 2
        translated = await gateway.call("2", method=MESSAGES, body=TURN, streamed=True)
        assert isinstance(translated, CallError)
        assert "mixes the parts of several tool calls" in translated.error.reason
