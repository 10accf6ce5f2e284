"""Failures of model providers: their errors, their charges and the circuit breaker."""

import asyncio
from pathlib import Path
from time import time

import pytest

from harness.apis.model_provider import (
    ModelProvider,
    ModelRequest,
    chunk,
)
from harness.network.tcp_servers import served
from harness.services.model_gateway import RESERVED, ModelGateway, provider
from harness.waits import until, until_async
from toolbus_common.config import Provider
from toolbus_common.contracts.model_calls import MESSAGES
from toolbus_common.service.process_context import ProcessContext
from toolbus_executor.main import build


async def test_a_provider_that_dies_within_a_stream_ends_it_with_an_error_after_its_parts(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.begin_stream()
        await request.send(chunk("eight by") + b'data: {"incompl')
        await until(lambda: gateway.chunks("1"), "the first part")
        request.kill()

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        error = await gateway.error("1", streamed=True)
        assert error.code == "upstream_dead"
        assert gateway.chunks("1") == chunk("eight by")
        assert len(model.requests) == 1, "never retried"
        outcome = await gateway.outcome("1")
        assert outcome["charge"] == -(-len(model.requests[0].body) // 4) + 2 * 2 + 7
        (row,) = await gateway.rows()
        assert [each["code"] for each in row["failures"]] == ["upstream_dead"]


async def test_an_error_in_the_form_of_a_stream_has_no_usage(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply(chunk("busy"), 429, content_type="text/event-stream")

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        assert (await gateway.error("1", streamed=True)).code == "model_refused"
        assert (await gateway.outcome("1"))["charge"] == 0
        assert not [each for each in gateway.events if each["event"] == "model.used"]


async def test_a_stream_that_is_cancelled_while_the_model_reasons_costs_its_time(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.begin_stream()
        await request.send(b": the model reasons\n\n")
        await gateway.cancel("1")
        await request.closed.wait()

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        assert (await gateway.error("1", streamed=True)).code == "cancelled"
        only_input = -(-len(model.requests[0].body) // 4) + 7
        assert only_input < (await gateway.outcome("1"))["charge"]


async def test_a_stream_without_an_end_is_an_error(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        request.writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + chunk("a")
        )
        await request.writer.drain()
        request.writer.close()

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        assert (await gateway.error("1", streamed=True)).code == "upstream_dead"


async def test_a_request_without_a_response_costs_the_reserved_amount(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        request.kill()

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        assert (await gateway.error("1")).code == "upstream_dead"
        assert (await gateway.outcome("1"))["charge"] == RESERVED
        assert not [each for each in gateway.events if each["event"] == "model.used"]


async def test_a_provider_that_refuses_connections_costs_nothing(gateway: ModelGateway) -> None:
    async with ModelProvider().running() as gone:
        declared = provider(gone)
    async with gateway.executor(p=declared):
        assert (await gateway.error("1")).code == "upstream_dead"
        outcome = await gateway.outcome("1")
        assert (outcome["charge"], outcome["sent"]) == (0, False)


async def test_client_errors_of_the_provider_cost_nothing_and_do_not_open_the_breaker(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        error = {"message": "The context is too long.", "code": "context_length_exceeded"}
        await request.reply({"error": error}, 400)

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        for number in range(8):
            error = await gateway.error(str(number), streamed=number % 2 == 0)
            assert error.reason == "The context is too long."
            assert error.data == {"status": 400, "type": "context_length_exceeded"}
            assert (await gateway.outcome(str(number)))["charge"] == 0
        (row,) = await gateway.rows()
        assert (row["breaker"], row["failures"]) == ("closed", [])


async def test_server_errors_open_the_breaker(gateway: ModelGateway, model: ModelProvider) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply(b"<html>overloaded</html>", 503, content_type="text/html")

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        errors = [await gateway.error(str(number)) for number in range(6)]
        assert [each.code for each in errors] == ["model_refused"] * 5 + ["breaker_open"]
        assert errors[0].data["status"] == 503
        assert "503" in errors[0].reason
        assert "HTTP 503" in errors[5].reason
        (row,) = await gateway.rows()
        assert (row["breaker"], len(model.requests)) == ("open", 5)


async def test_a_provider_that_stops_within_a_stream_times_out(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.begin_stream()
        await request.send(chunk("eight by"))
        await request.closed.wait()

    model.answer = answer
    async with gateway.executor(p=provider(model, timeout=15)):
        error = await gateway.error("1", streamed=True)
        assert error.code == "upstream_timeout"
        assert (await gateway.event("1", "model.used"))["cut"] is True
        assert (await gateway.outcome("1"))["charge"] < RESERVED


async def test_a_response_after_the_deadline_costs_the_reserved_amount(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.closed.wait()

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        assert (await gateway.error("1", deadline=time() + 15)).code == "upstream_timeout"
        assert (await gateway.outcome("1"))["charge"] == RESERVED


async def test_an_event_that_is_too_large_is_an_error(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.begin_stream()
        await request.send(chunk("a") + b"data: ")
        for _ in range(110):
            await request.send(b"x" * 65536)

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        error = await gateway.error("1", streamed=True)
        assert error.code == "upstream_invalid"
        assert gateway.chunks("1") == chunk("a")


async def test_an_event_that_cannot_be_translated_is_an_error_after_the_earlier_events(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.begin_stream()
        await request.send(chunk("before"))
        await until(lambda: b"before" in gateway.chunks("1"), "the first event")
        await request.send(b'data: {"choices": 5}\n\n')

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        body = {"max_tokens": 9, "messages": [{"role": "user", "content": "a"}], "stream": True}
        error = await gateway.error("1", method=MESSAGES, body=body, streamed=True)
        assert error.code == "upstream_invalid"
        assert (await gateway.event("1", "model.used"))["cut"] is True


async def test_an_api_that_the_provider_does_not_serve_is_named(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async with gateway.executor(p=provider(model, apis=("embeddings",))):
        error = await gateway.error("1")
        assert error.code == "invalid"
        assert "embeddings" in error.reason
        assert (await gateway.outcome("1"))["sent"] is False


async def test_a_missing_secret_is_named_and_read_again(
    gateway: ModelGateway, model: ModelProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLBUS_SECRET_SECONDS", "0.1")
    file = tmp_path / "key"
    await gateway.configure(p=provider(model, key=f"${{file:{file}}}"))
    async with build(ProcessContext()).running():

        async def is_failed() -> bool:
            return any(
                row["state"] == "failed" and row["last_failure"] for row in await gateway.rows()
            )

        await until_async(is_failed, "the row")
        error = await gateway.error("1")
        assert error.code == "upstream_dead"
        assert str(file) in error.reason
        new = file.with_suffix(".new")
        new.write_text("first-key")
        new.replace(file)
        await until_async(gateway.is_ready, "the first key")
        await gateway.call("2")
        assert model.requests[-1].headers["authorization"] == "Bearer first-key"


async def test_a_probe_closes_the_breaker(gateway: ModelGateway, model: ModelProvider) -> None:
    broken = True

    async def answer(request: ModelRequest) -> None:
        await request.reply({"data": []}, 503 if broken else 200)

    model.answer = answer
    async with gateway.executor(p=provider(model, probe=0.05)):

        async def has_breaker(state: str) -> bool:
            return [row["breaker"] for row in await gateway.rows()] == [state]

        await until_async(lambda: has_breaker("open"), "failed probes")
        assert {request.path for request in model.requests} == {"/v1/models"}
        broken = False
        await until_async(lambda: has_breaker("closed"), "a successful probe")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_request_that_is_cancelled_while_it_connects_is_free(
    gateway: ModelGateway, *, streamed: bool
) -> None:
    connected = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        connected.set()  # the TLS handshake is never answered
        await reader.read()

    async with served(accept) as port:
        declared = Provider(kind="openai", url=f"https://127.0.0.1:{port}/v1", models=("m",))
        async with gateway.executor(p=declared):
            await gateway.begin("1", streamed=streamed)
            await connected.wait()
            await gateway.cancel("1")
            assert (await gateway.end("1")).error.code == "cancelled"
            assert (await gateway.outcome("1"))["charge"] == 0


async def test_a_request_that_is_cancelled_after_it_was_sent_costs_what_it_may_have_used(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await gateway.cancel(str(len(model.requests)))
        await request.closed.wait()

    model.answer = answer
    async with gateway.executor(p=provider(model)):
        assert (await gateway.error("1")).code == "cancelled"
        assert (await gateway.outcome("1"))["charge"] == RESERVED
        assert (await gateway.error("2", streamed=True)).code == "cancelled"
        only_input = -(-len(model.requests[1].body) // 4) + 7
        # The model may have reasoned meanwhile, so the time counts as output.
        charge = (await gateway.outcome("2"))["charge"]
        assert only_input < charge
        used = await gateway.event("2", "model.used")
        assert (used["charge"], used["estimated"], used["cut"]) == (charge, True, True)
