"""Calls of servers that go wrong: what is tried again, what is not, and how often."""

import asyncio
from collections.abc import AsyncIterator
from time import time
from typing import Any

import pytest

from harness.services.call_runner import AT_LOOPBACK, CallRunner, ReplyRecorder, admitted
from harness.upstreams.faulty_server import TROUBLES, FaultyServer
from harness.waits import until
from toolbus_common.contracts import CallCompleted, CallError, CallFailed
from toolbus_common.errors import (
    BreakerOpenError,
    OverloadedError,
    UpstreamDeadError,
    UpstreamFaultError,
    UpstreamTimeoutError,
)
from toolbus_common.observability.trace_context import parent_based, span_id
from toolbus_common.observability.tracing import Span, recording
from toolbus_executor.resilience.circuit_breaker import Breaker
from toolbus_executor.upstreams.mcp.http import HttpUpstream

TWICE = {"twice": {"idempotent": True}}


@pytest.fixture
async def server() -> AsyncIterator[FaultyServer]:
    made = FaultyServer()
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def bench(server: FaultyServer) -> AsyncIterator[CallRunner]:
    """A runner over the troubled server, one of whose tools may be called twice."""
    made = CallRunner(tools=TWICE, concurrency=4)
    await made.open(HttpUpstream(server.url, {}, made.news, AT_LOOPBACK))
    yield made
    await made.close()


@pytest.mark.parametrize("trouble", ["reset", "failing"])
async def test_a_call_that_may_happen_twice_is_tried_again(
    bench: CallRunner, server: FaultyServer, trouble: str
) -> None:
    server.trouble, server.only = trouble, 1
    assert (await bench.call("twice")).text == "done"
    assert (server.call_count, bench.runner.retries.made) == (2, 1)
    assert isinstance(bench.outcome, CallCompleted)


@pytest.mark.parametrize("trouble", ["reset", "failing"])
async def test_a_call_that_may_have_happened_is_not_tried_again(
    bench: CallRunner, server: FaultyServer, trouble: str
) -> None:
    server.trouble, server.only = trouble, 1
    assert isinstance((await bench.call("plain")).error, UpstreamDeadError)
    assert server.call_count == 1
    assert bench.outcome.sent


async def test_a_call_whose_progress_was_promised_is_not_begun_again(
    bench: CallRunner, server: FaultyServer
) -> None:
    server.trouble, server.only = "reset", 1
    assert isinstance((await bench.call("twice", progress=True)).error, UpstreamDeadError)
    assert server.call_count == 1


async def test_an_answer_that_is_nonsense_is_not_asked_for_again(
    bench: CallRunner, server: FaultyServer
) -> None:
    server.trouble = "garbage"
    failed = (await bench.call("plain")).error
    assert isinstance(failed, UpstreamDeadError | UpstreamFaultError)
    assert server.call_count == 1


async def test_what_was_never_sent_is_tried_again(bench: CallRunner, server: FaultyServer) -> None:
    await server.close()
    calling = asyncio.create_task(bench.call("plain"))
    await until(lambda: bench.runner.retries.made, "the first retry")
    assert isinstance((await calling).error, UpstreamDeadError)
    assert bench.runner.retries.made == 2
    assert isinstance(bench.outcome, CallFailed)
    assert not bench.outcome.sent


async def test_what_was_sent_once_is_told_as_sent_whatever_came_later(
    bench: CallRunner, server: FaultyServer
) -> None:
    server.trouble = "reset"
    calling = asyncio.create_task(bench.call("twice"))
    await until(lambda: server.call_count, "the first attempt")
    await server.close()
    assert isinstance((await calling).error, UpstreamDeadError)
    assert bench.outcome.sent
    assert bench.outcome.charge == 5


async def test_nothing_is_tried_again_after_its_deadline(
    bench: CallRunner, server: FaultyServer
) -> None:
    server.trouble = "hung"
    failed = (await bench.call("twice", deadline=time() + 3)).error
    assert isinstance(failed, UpstreamTimeoutError)
    assert server.call_count == 1


async def test_a_server_that_always_fails_is_asked_a_fifth_more_often_at_most(
    bench: CallRunner, server: FaultyServer
) -> None:
    bench.runner.breaker.circuit = Breaker(threshold=10_000)  # the budget alone must do
    server.trouble = "failing"
    for _ in range(100):
        assert isinstance((await bench.call("twice")).error, UpstreamDeadError)
    assert 100 < server.call_count <= 120


async def test_an_open_breaker_is_asked_nothing_again_and_names_one_reason(
    bench: CallRunner, server: FaultyServer
) -> None:
    bench.runner.breaker.circuit = Breaker(pause=60.0)  # it stays open meanwhile
    server.trouble = "failing"
    for _ in range(20):
        failed = (await bench.call("twice")).error
    assert isinstance(failed, BreakerOpenError)
    assert server.call_count == 5
    assert failed.reason.count("failed repeatedly") == 1
    codes = {each["code"] for each in bench.runner.status()["failures"]}
    assert codes == {"upstream_dead"}


@pytest.mark.parametrize("trouble", TROUBLES[1:])
async def test_one_bad_server_of_ten_fails_nobody_elses_calls(trouble: str) -> None:
    servers = [FaultyServer() for _ in range(10)]
    benches = [CallRunner(tools=TWICE, timeout=60, concurrency=4) for _ in servers]
    for server, bench in zip(servers, benches, strict=True):
        await server.start()
        await bench.open(HttpUpstream(server.url, {}, bench.news, AT_LOOPBACK))
    servers[0].trouble = trouble
    bad = [asyncio.create_task(benches[0].call("twice", call_id=f"c{n}")) for n in range(40)]
    await until(lambda: servers[0].call_count, "a call in trouble")
    for bench in benches[1:]:
        items = [await bench.call("twice", call_id=f"c{number}") for number in range(10)]
        assert {each.text for each in items} == {"done"}
    assert [server.call_count for server in servers[1:]] == [10] * 9
    for task in bad:
        task.cancel()
    await asyncio.gather(*bad, return_exceptions=True)
    assert servers[0].call_count <= 48
    for server, bench in zip(servers, benches, strict=True):
        await bench.close()
        await server.close()


async def test_more_calls_than_there_is_room_for_are_refused_before_any_other_ends(
    bench: CallRunner, server: FaultyServer
) -> None:
    server.trouble = "hung"

    async def call(number: int) -> Any:
        answers = ReplyRecorder()
        await bench.runner.run(admitted("plain", call_id=f"c{number}"), answers)
        return answers.frames[-1]

    calls = [asyncio.create_task(call(number)) for number in range(20)]
    await until(lambda: sum(each.done() for each in calls) == 12, "the refusals")
    refused = [each.result() for each in calls if each.done()]
    for frame in refused:
        assert isinstance(frame, CallError)
        assert isinstance(frame.error, OverloadedError)
        assert frame.error.data["retry_after"] >= 1
    await until(lambda: server.most == 4, "those it has places for")
    assert bench.runner.status()["waiting"] == 4
    for each in calls:
        each.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_each_attempt_is_a_span_of_its_own_and_the_call_counts_them(
    bench: CallRunner, server: FaultyServer
) -> None:
    kept: list[Span] = []

    class Sink:
        def take(self, span: Span) -> None:
            kept.append(span)

    server.trouble, server.only = "reset", 1
    with recording.to(Sink(), parent_based):
        assert (await bench.call("twice")).text == "done"
    first, second, whole = kept
    assert [span.name for span in kept] == ["tools/call twice"] * 2 + ["toolbus.execute"]
    assert [span.attributes["toolbus.attempt"] for span in (first, second)] == [1, 2]
    assert (first.error, second.error, whole.error) == ("upstream_dead", "", "")
    assert whole.attributes["toolbus.attempts"] == 2
    assert {span.parent_id for span in (first, second)} == {span_id(whole.traceparent)}


async def test_a_call_that_waits_for_its_turn_has_a_span_for_that(
    bench: CallRunner, server: FaultyServer
) -> None:
    kept: list[Span] = []

    class Sink:
        def take(self, span: Span) -> None:
            kept.append(span)

    server.trouble = "hung"
    with recording.to(Sink(), parent_based):
        calls = [asyncio.create_task(bench.call("plain")) for _ in range(5)]
        await until(lambda: bench.runner.bulkhead.waiting == 1)
        server.trouble = ""
        server.released.set()
        await asyncio.gather(*calls)
    assert [span.name for span in kept].count("toolbus.queue") == 1
