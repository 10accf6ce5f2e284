"""Calls to failing servers: retries, their limits, breakers and overload."""

import asyncio
from collections.abc import AsyncIterator
from time import time
from typing import Any

import pytest

from harness.services.call_runner import AT_LOOPBACK, CallRunner, ReplyRecorder, admitted
from harness.upstreams.faulty_server import TROUBLES, FaultyServer
from harness.waits import until
from toolbus_common.circuit_breaker import Breaker
from toolbus_common.contracts import CallCompleted, CallError, CallFailed
from toolbus_common.errors import (
    BreakerOpenError,
    OverloadedError,
    UpstreamDeadError,
    UpstreamInvalidError,
    UpstreamTimeoutError,
)
from toolbus_common.observability.trace_context import parent_based, span_id
from toolbus_common.observability.tracing import Span, recording
from toolbus_executor.upstreams.mcp.http import HttpUpstream

TWICE = {"twice": {"idempotent": True}}


@pytest.fixture
async def server() -> AsyncIterator[FaultyServer]:
    server = FaultyServer()
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def client(server: FaultyServer) -> AsyncIterator[CallRunner]:
    """Run the troubled server, one of whose tools is idempotent."""
    client = CallRunner(tools=TWICE, concurrency=4)
    await client.open(HttpUpstream(server.url, {}, client.news, AT_LOOPBACK))
    yield client
    await client.close()


@pytest.mark.parametrize("trouble", ["reset", "failing"])
async def test_an_idempotent_call_is_retried(
    client: CallRunner, server: FaultyServer, trouble: str
) -> None:
    server.trouble, server.only = trouble, 1
    assert (await client.call("twice")).text == "done"
    assert (server.call_count, client.runner.retries.made) == (2, 1)
    assert isinstance(client.outcome, CallCompleted)


@pytest.mark.parametrize("trouble", ["reset", "failing"])
async def test_a_call_that_may_have_run_is_not_retried(
    client: CallRunner, server: FaultyServer, trouble: str
) -> None:
    server.trouble, server.only = trouble, 1
    assert isinstance((await client.call("plain")).error, UpstreamDeadError)
    assert server.call_count == 1
    assert client.outcome.sent


async def test_a_call_with_progress_is_not_retried(
    client: CallRunner, server: FaultyServer
) -> None:
    server.trouble, server.only = "reset", 1
    assert isinstance((await client.call("twice", progress=True)).error, UpstreamDeadError)
    assert server.call_count == 1


async def test_an_invalid_answer_is_not_requested_again(
    client: CallRunner, server: FaultyServer
) -> None:
    server.trouble = "garbage"
    failed = (await client.call("plain")).error
    assert isinstance(failed, UpstreamDeadError | UpstreamInvalidError)
    assert server.call_count == 1


async def test_an_unsent_call_is_retried(client: CallRunner, server: FaultyServer) -> None:
    await server.close()
    calling = asyncio.create_task(client.call("plain"))
    await until(lambda: client.runner.retries.made, "the first retry")
    assert isinstance((await calling).error, UpstreamDeadError)
    assert client.runner.retries.made == 2
    assert isinstance(client.outcome, CallFailed)
    assert not client.outcome.sent


async def test_a_call_sent_once_is_recorded_as_sent(
    client: CallRunner, server: FaultyServer
) -> None:
    server.trouble = "reset"
    calling = asyncio.create_task(client.call("twice"))
    await until(lambda: server.call_count, "the first attempt")
    await server.close()
    assert isinstance((await calling).error, UpstreamDeadError)
    assert client.outcome.sent
    assert client.outcome.charge == 5


async def test_no_call_is_retried_after_its_deadline(
    client: CallRunner, server: FaultyServer
) -> None:
    server.trouble = "hung"
    failed = (await client.call("twice", deadline=time() + 3)).error
    assert isinstance(failed, UpstreamTimeoutError)
    assert server.call_count == 1


async def test_a_failing_server_gets_at_most_a_fifth_more_calls(
    client: CallRunner, server: FaultyServer
) -> None:
    client.runner.breaker.circuit = Breaker(threshold=10_000)  # the retry budget alone must limit
    server.trouble = "failing"
    for _ in range(100):
        assert isinstance((await client.call("twice")).error, UpstreamDeadError)
    assert 100 < server.call_count <= 120


async def test_an_open_breaker_is_not_retried_and_names_one_reason(
    client: CallRunner, server: FaultyServer
) -> None:
    client.runner.breaker.circuit = Breaker(pause=60.0)  # it stays open meanwhile
    server.trouble = "failing"
    for _ in range(20):
        failed = (await client.call("twice")).error
    assert isinstance(failed, BreakerOpenError)
    assert server.call_count == 5
    assert failed.reason.count("failed repeatedly") == 1
    codes = {each["code"] for each in client.runner.status()["failures"]}
    assert codes == {"upstream_dead"}


@pytest.mark.parametrize("trouble", TROUBLES[1:])
async def test_one_failing_server_of_ten_fails_no_calls_of_others(trouble: str) -> None:
    servers = [FaultyServer() for _ in range(10)]
    clients = [CallRunner(tools=TWICE, timeout=60, concurrency=4) for _ in servers]
    for server, client in zip(servers, clients, strict=True):
        await server.start()
        await client.open(HttpUpstream(server.url, {}, client.news, AT_LOOPBACK))
    servers[0].trouble = trouble
    bad = [asyncio.create_task(clients[0].call("twice", call_id=f"c{n}")) for n in range(40)]
    await until(lambda: servers[0].call_count, "a call in trouble")
    for client in clients[1:]:
        items = [await client.call("twice", call_id=f"c{number}") for number in range(10)]
        assert {each.text for each in items} == {"done"}
    assert [server.call_count for server in servers[1:]] == [10] * 9
    for task in bad:
        task.cancel()
    await asyncio.gather(*bad, return_exceptions=True)
    assert servers[0].call_count <= 48
    for server, client in zip(servers, clients, strict=True):
        await client.close()
        await server.close()


async def test_calls_beyond_the_queue_are_rejected_before_any_other_ends(
    client: CallRunner, server: FaultyServer
) -> None:
    server.trouble = "hung"

    async def call(number: int) -> Any:
        answers = ReplyRecorder()
        await client.run(admitted("plain", call_id=f"c{number}"), answers)
        return answers.frames[-1]

    calls = [asyncio.create_task(call(number)) for number in range(20)]
    await until(lambda: sum(each.done() for each in calls) == 12, "the rejections")
    refused = [each.result() for each in calls if each.done()]
    for reply in refused:
        assert isinstance(reply, CallError)
        assert isinstance(reply.error, OverloadedError)
        assert reply.error.data["retry_after"] >= 1
    await until(lambda: server.maximum == 4, "the calls with a concurrency slot")
    assert client.runner.status()["waiting"] == 4
    for each in calls:
        each.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_each_attempt_is_a_span_and_the_call_counts_them(
    client: CallRunner, server: FaultyServer
) -> None:
    spans: list[Span] = []

    class Sink:
        def take(self, span: Span) -> None:
            spans.append(span)

    server.trouble, server.only = "reset", 1
    with recording.to(Sink(), parent_based):
        assert (await client.call("twice")).text == "done"
    first, second, whole = spans
    assert [span.name for span in spans] == ["tools/call twice"] * 2 + ["toolbus.execute"]
    assert [span.attributes["toolbus.attempt"] for span in (first, second)] == [1, 2]
    assert (first.error, second.error, whole.error) == ("upstream_dead", "", "")
    assert whole.attributes["toolbus.attempts"] == 2
    assert {span.parent_id for span in (first, second)} == {span_id(whole.traceparent)}


async def test_a_call_that_waits_for_a_slot_has_a_span_for_it(
    client: CallRunner, server: FaultyServer
) -> None:
    spans: list[Span] = []

    class Sink:
        def take(self, span: Span) -> None:
            spans.append(span)

    server.trouble = "hung"
    with recording.to(Sink(), parent_based):
        calls = [asyncio.create_task(client.call("plain")) for _ in range(5)]
        await until(lambda: client.runner.bulkhead.waiting == 1)
        server.trouble = ""
        server.released.set()
        await asyncio.gather(*calls)
    assert [span.name for span in spans].count("toolbus.queue") == 1
