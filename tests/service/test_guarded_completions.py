"""Guards on the responses of models: complete, streamed, translated and from the cache."""

import json
import random
from typing import Any

import pytest

from harness.apis import cloud_providers as clouds
from harness.apis.cloud_providers import BODIES, cloud_provider
from harness.apis.model_provider import (
    DONE,
    USAGE,
    ModelProvider,
    ModelRequest,
    chunk,
    last_chunk,
    usage_chunk,
)
from harness.clients.model_sdks import accumulated, check_response
from harness.engines.nats_server import NatsAt
from harness.guards.plugin_programs import plugin_program, seed_of
from harness.services.guarded import TOKEN
from harness.services.model_gateway import ModelGateway, provider
from harness.waits import until
from toolbus_common.contracts import CallError, CallResult
from toolbus_common.contracts.model_calls import CHAT, CacheTerms
from toolbus_common.errors import GuardBlockedError

REDACT = {"kind": "secrets", "on": ["completions"], "action": "redact"}
BLOCK = {"kind": "secrets", "on": ["completions"], "action": "block"}
ONE: dict[str, Any] = {"guards": ("g",), "run": "r1", "principal_id": "p1"}
PLACEHOLDER = "[redacted:github-pat:"


def answers(text: str, longest: int = 5) -> Any:
    """Return an answer of a provider with this text, in pieces of random length."""

    async def answer(request: ModelRequest) -> None:
        if not request.json.get("stream"):
            message = {"role": "assistant", "content": text}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            await request.reply({"model": "m", "choices": choices, "usage": USAGE})
            return
        await request.begin_stream()
        chance, rest = random.Random(len(text)), text
        while rest:
            size = chance.randint(1, longest)
            await request.send(chunk(rest[:size]))
            rest = rest[size:]
        for part in (last_chunk(), usage_chunk(), DONE):
            await request.send(part)
        await request.end_stream()

    return answer


def texts_of(chunks: bytes) -> str:
    """Return the text of a chat stream."""
    events = [each.removeprefix(b"data: ") for each in chunks.split(b"\n\n") if each]
    choices = [json.loads(each)["choices"] for each in events if each != b"[DONE]"]
    return "".join(each[0]["delta"].get("content", "") for each in choices if each)


async def verdicts(gateway: ModelGateway, number: str) -> list[str]:
    """Return the verdicts in the outcome of a call."""
    outcome = await gateway.outcome(number)
    return [each["verdict"] for each in json.loads(outcome["guards"])]


async def test_a_complete_response_is_redacted(gateway: ModelGateway, model: ModelProvider) -> None:
    gateway.guards = {"g": REDACT}
    model.answer = answers(f"It is {TOKEN}.")
    async with gateway.executor(p=provider(model)):
        reply = await gateway.call("1", **ONE)
        text = json.loads(reply.body)["choices"][0]["message"]["content"]
        assert text.startswith(f"It is {PLACEHOLDER}")
        assert await verdicts(gateway, "1") == ["redacted"]
        plain = await gateway.call("2")
        assert TOKEN.encode() in plain.body
        assert (await gateway.outcome("1"))["charge"] == (await gateway.outcome("2"))["charge"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_plugin_changes_whole_texts_of_a_response(
    gateway: ModelGateway, model: ModelProvider, nats_server: NatsAt, *, streamed: bool
) -> None:
    may = {"sees": ["result"], "may": ["change"]}
    gateway.plugins = {"probe": {"hooks": ["after_model"], **may}}
    model.answer = answers("hello " * 50)

    def upper(request: dict[str, Any]) -> dict[str, Any]:
        return {"verdict": "change", "content": [str(each).upper() for each in request["content"]]}

    seed = nats_server.seed(seed_of("probe"))
    async with (
        plugin_program(nats_server.url, seed, upper) as program,
        gateway.executor(p=provider(model)),
    ):
        reply = await gateway.call("1", streamed=streamed, guards=("plugin:probe",))
        assert isinstance(reply, CallResult)
        body = gateway.chunks("1") if streamed else reply.body
        assert b"HELLO" in body
        assert b"hello" not in body
        assert {each["point"] for each in program.requests} == {"after_model"}
        assert await verdicts(gateway, "1") == ["redacted"]


async def test_a_blocked_response_is_charged(gateway: ModelGateway, model: ModelProvider) -> None:
    gateway.guards = {"g": BLOCK}
    model.answer = answers(TOKEN)
    async with gateway.executor(p=provider(model)):
        reply = await gateway.call("1", **ONE)
        assert isinstance(reply.error, GuardBlockedError)
        outcome = await gateway.outcome("1")
        assert (outcome["sent"], outcome["charge"]) == (True, 25)
        assert await verdicts(gateway, "1") == ["blocked"]


async def test_a_stream_is_redacted_across_its_pieces(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    gateway.guards = {"g": REDACT}
    text = "word " * 200 + TOKEN + " more" * 200
    model.answer = answers(text)
    async with gateway.executor(p=provider(model)):
        reply = await gateway.call("1", streamed=True, **ONE)
        assert isinstance(reply, CallResult)
        shown = texts_of(gateway.chunks("1"))
        before, _, after = shown.partition(PLACEHOLDER)
        assert before == "word " * 200
        assert after[16:] == "]" + " more" * 200
        assert gateway.chunks("1").endswith(DONE)
        assert await verdicts(gateway, "1") == ["redacted"]
        await gateway.call("2", streamed=True)
        assert texts_of(gateway.chunks("2")) == text


async def test_a_stream_without_a_finding_arrives_before_it_ends(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    gateway.guards = {"g": BLOCK}

    async def answer(request: ModelRequest) -> None:
        await request.begin_stream()
        for _ in range(200):
            await request.send(chunk("a word "))
        await until(lambda: texts_of(gateway.chunks("1")), "the first part")
        for part in (last_chunk(), DONE):
            await request.send(part)
        await request.end_stream()

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        await gateway.call("1", streamed=True, **ONE)
        assert texts_of(gateway.chunks("1")) == "a word " * 200
        assert await verdicts(gateway, "1") == ["passed"]


async def test_a_blocked_stream_ends_with_an_error_and_without_the_secret(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    gateway.guards = {"g": BLOCK}
    model.answer = answers("word " * 200 + TOKEN + " more" * 2000, longest=40)
    async with gateway.executor(p=provider(model)):
        reply = await gateway.call("1", streamed=True, **ONE)
        assert isinstance(reply, CallError)
        assert isinstance(reply.error, GuardBlockedError)
        shown = texts_of(gateway.chunks("1"))
        assert ("word " * 200).startswith(shown)
        outcome = await gateway.outcome("1")
        assert (outcome["event"], outcome["code"]) == ("call.failed", "guard_blocked")
        assert outcome["sent"]
        assert outcome["charge"] > 0
        assert await verdicts(gateway, "1") == ["blocked"]


async def test_arguments_of_a_tool_call_are_checked_as_json(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    gateway.guards = {"g": REDACT}
    escaped = "".join(f"\\u{ord(each):04x}" for each in TOKEN)
    arguments = f'{{"path": "/tmp/a", "content": "{escaped}"}}'

    async def answer(request: ModelRequest) -> None:
        await request.begin_stream()
        for at in range(0, len(arguments), 7):
            call: dict[str, Any] = {"index": 0, "function": {"arguments": arguments[at : at + 7]}}
            if not at:
                call |= {"id": "call_1", "type": "function"}
                call["function"]["name"] = "write"
            choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}
            await request.send(b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode())
        for part in (last_chunk("tool_calls"), DONE):
            await request.send(part)
        await request.end_stream()

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        await gateway.call("1", streamed=True, **ONE)
        events = [each.removeprefix(b"data: ") for each in gateway.chunks("1").split(b"\n\n")]
        made = ""
        for event in events:
            if event and event != b"[DONE]":
                for call in json.loads(event)["choices"][0]["delta"].get("tool_calls", ()):
                    made += call["function"].get("arguments", "")
        found = json.loads(made)
        assert found["path"] == "/tmp/a"
        assert found["content"].startswith(PLACEHOLDER)


@pytest.mark.parametrize("kind", ["gemini", "vertex", "bedrock"])
async def test_responses_of_every_kind_are_redacted_for_every_client(
    kind: str, gateway: ModelGateway, model: ModelProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clouds, "PIECES", (f"It is {TOKEN[:15]}", f"{TOKEN[15:]} there"))
    gateway.guards = {"g": REDACT}
    model.answer = clouds.bedrock if kind == "bedrock" else clouds.gemini
    async with gateway.executor(p=cloud_provider(kind, model)):
        for method, body in BODIES.items():
            number = f"{kind}-{method[-4:]}"
            reply = await gateway.call(number, method=method, body=body, **ONE)
            made = json.loads(reply.body)
            check_response(method, made)
            assert f"It is {PLACEHOLDER}" in json.dumps(made)
            assert TOKEN not in json.dumps(made)
            number += "-streamed"
            streamed = body | {"stream": True}
            reply = await gateway.call(number, method=method, streamed=True, body=streamed, **ONE)
            assert isinstance(reply, CallResult), reply
            final = accumulated(method, gateway.chunks(number))
            check_response(method, final)
            assert f"It is {PLACEHOLDER}" in json.dumps(final)
            assert TOKEN[15:] not in gateway.chunks(number).decode()
            assert TOKEN[:15] not in gateway.chunks(number).decode()
            assert await verdicts(gateway, number) == ["redacted"]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_cached_response_is_checked_for_each_caller(
    gateway: ModelGateway, model: ModelProvider, *, streamed: bool
) -> None:
    gateway.guards = {"g": REDACT}
    model.answer = answers(f"It is {TOKEN}.", longest=9)
    more: dict[str, Any] = {"cache": CacheTerms("team:t").encode(), "streamed": streamed}
    async with gateway.executor(p=provider(model, cache={"ttl": 60, "scope": "team"})):

        async def text(number: str, **own: Any) -> str:
            reply = await gateway.call(number, **more, **own)
            assert isinstance(reply, CallResult), reply
            body = gateway.chunks(number) if streamed else reply.body
            return texts_of(body) if streamed else body.decode()

        assert TOKEN in await text("1")
        assert gateway.note("1").status == "miss"
        guarded = await text("2", **ONE)
        assert gateway.note("2").status == "hit"
        assert TOKEN not in guarded
        assert PLACEHOLDER in guarded
        assert TOKEN in await text("3")


async def test_a_text_of_a_provider_in_an_error_is_checked(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    gateway.guards = {"g": REDACT}

    async def answer(request: ModelRequest) -> None:
        await request.reply({"error": {"message": f"Bad {TOKEN}"}}, 400)

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        error = await gateway.error("1", method=CHAT, **ONE)
        assert error.reason.startswith(f"Bad {PLACEHOLDER}")
        assert error.data["status"] == 400
