"""Execution plans: which calls go to the adapter directly, and when a plan becomes invalid."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness.services.call_runner import CallRunner, ReplyRecorder, admitted
from harness.waits import until
from toolbus_common.contracts import CallAdmitted, CallResult, CatalogEntry, ProtocolFamily
from toolbus_common.observability.trace_context import parent_based
from toolbus_common.observability.tracing.context import Span
from toolbus_common.observability.tracing.spans import recording
from toolbus_executor.upstreams.base import Send

RESULT = b'{"content":[],"resultType":"complete"}'


class Adapter:
    """An upstream that records how each call reached it."""

    left_out: dict[str, str] = {}  # noqa: RUF012 - never written here
    sends_requests = False

    def __init__(self, name: str = "first") -> None:
        self.name = name
        self.calls: list[str] = []

    def plain_sender(self, tool: str) -> Send | None:
        """Return a function of its own for every tool but one."""
        return None if tool == "task" else self._plain

    async def call(self, _call: CallAdmitted, _seconds: float, _caller: Any) -> bytes:
        """Record a call through the round trips."""
        self.calls.append("general")
        return RESULT

    async def _plain(self, _call: CallAdmitted, _seconds: float, _caller: Any) -> bytes:
        self.calls.append("plain")
        return RESULT


@pytest.fixture
async def runner() -> AsyncIterator[CallRunner]:
    """Return a call handler over an adapter."""
    runner = CallRunner(concurrency=1)
    runner.runner.upstream = Adapter()  # type: ignore[assignment]
    yield runner
    runner.runner.close()


async def route(runner: CallRunner, tool: str = "echo", **more: Any) -> str:
    """Run a call; return how it reached the adapter."""
    reply = await runner.call(tool, **more)
    assert isinstance(reply.frames[-1], CallResult)
    adapter: Any = runner.runner.upstream
    return str(adapter.calls[-1])


async def test_a_plain_call_goes_to_the_adapter_directly(runner: CallRunner) -> None:
    assert await route(runner) == "plain"
    assert await route(runner, progress=True, log_level="info") == "plain"


@pytest.mark.parametrize(
    "more",
    [
        {"extra": '{"_meta":{"a":1}}'},
        {"extra": '{"task":{}}'},
        {"family": ProtocolFamily.LEGACY},
        {"caller_family": ProtocolFamily.LEGACY},
        {"method": "tasks/get"},
        {"tool": "task"},
    ],
)
async def test_a_call_with_another_feature_makes_round_trips(
    runner: CallRunner, more: dict[str, Any]
) -> None:
    assert await route(runner, **more) == "general"


async def test_a_recorded_call_makes_round_trips_which_have_spans(runner: CallRunner) -> None:
    assert await route(runner) == "plain"
    with recording.to(Spans(), parent_based):
        assert await route(runner) == "general"
    assert await route(runner) == "plain"


async def test_a_plan_is_shared_by_calls_and_replaced_with_the_connection(
    runner: CallRunner,
) -> None:
    plans, call = runner.runner.plans, admitted("echo")
    plan = plans.find(call, runner.runner.upstream)
    assert plans.find(admitted("echo", {"a": 1}), runner.runner.upstream) is plan
    other: Any = Adapter("second")
    assert plans.find(call, other).upstream is other
    assert plans.find(call, None).send is None


async def test_a_plan_is_replaced_when_the_definitions_change(runner: CallRunner) -> None:
    plans, call = runner.runner.plans, admitted("echo")
    assert not plans.find(call, runner.runner.upstream).checks_arguments
    schema = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
    await runner.runner.checks.learn([tool("echo", schema)])
    assert plans.find(call, runner.runner.upstream).checks_arguments


async def test_a_call_that_waits_for_a_slot_uses_the_newest_connection(runner: CallRunner) -> None:
    handler = runner.runner
    await handler.bulkhead.enter(60)
    task = asyncio.ensure_future(handler.run(admitted("echo"), ReplyRecorder()))
    await until(lambda: handler.bulkhead.waiting == 1)
    first: Any = handler.upstream
    second: Any = Adapter("second")
    handler.upstream = second
    handler.bulkhead.leave()
    assert isinstance(await task, CallResult)
    assert (first.calls, second.calls) == ([], ["plain"])


class Spans:
    """A sink that drops its spans."""

    def take(self, _span: Span) -> None:
        """Drop a span."""


def tool(name: str, schema: dict[str, Any]) -> CatalogEntry:
    """Return a listed tool."""
    return CatalogEntry(
        name=name, digest="0" * 64, definition={"name": name, "inputSchema": schema}
    )
