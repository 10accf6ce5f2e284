"""Single attempts: whatever ends one, the circuit breaker learns it and can probe again."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.services.call_runner import admitted
from toolbus_common.circuit_breaker import State
from toolbus_common.config.servers.timeouts import Timeouts
from toolbus_common.contracts import CallAdmitted, Progress
from toolbus_common.contracts.replies import ReplyMessage
from toolbus_executor.calls.attempt import Attempts
from toolbus_executor.calls.plan import ExecutionPlan
from toolbus_executor.resilience.breaker_reporter import BreakerReporter
from toolbus_executor.upstreams.base import Send
from toolbus_executor.upstreams.call_channel import Caller

RESULT = b'{"content":[]}'
UNUSED = cast("Any", None)


class StuckCaller:
    """A caller whose messages are never delivered."""

    def __init__(self) -> None:
        self.sending = asyncio.Event()

    async def send(self, _message: ReplyMessage) -> None:
        """Wait for ever."""
        self.sending.set()
        await asyncio.Event().wait()


def attempts() -> tuple[Attempts, BreakerReporter]:
    """Return attempts whose breaker waits for the result of a probe."""
    breaker = BreakerReporter("docs", cast("Any", SimpleNamespace(publish=lambda _event: None)))
    breaker.circuit.state = State.HALF_OPEN
    bulkhead = cast("Any", SimpleNamespace(record=lambda *_: None))
    return Attempts("docs", breaker, bulkhead, UNUSED, UNUSED, UNUSED, UNUSED), breaker


def plan(send: Send) -> ExecutionPlan:
    return ExecutionPlan(UNUSED, 0, cast("Timeouts", None), None, False, False, True, send)  # noqa: FBT003


async def test_a_probe_that_is_cancelled_while_its_messages_are_sent_allows_another() -> None:
    async def answer(_call: CallAdmitted, _seconds: float, caller: Caller) -> bytes:
        caller.used = True
        caller._put(Progress(b"{}"))
        return RESULT

    sending, breaker = attempts()
    context = StuckCaller()
    running = asyncio.ensure_future(sending.send(plan(answer), admitted("echo"), 60.0, context))
    await context.sending.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert breaker.circuit.admits(1e9)


async def test_a_probe_with_a_result_closes_the_circuit() -> None:
    async def answer(_call: CallAdmitted, _seconds: float, _caller: Caller) -> bytes:
        return RESULT

    sending, breaker = attempts()
    assert await sending.send(plan(answer), admitted("echo"), 60.0, StuckCaller()) == RESULT
    assert breaker.circuit.state is State.CLOSED
