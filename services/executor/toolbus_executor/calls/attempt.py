"""Single attempts to send calls of one server."""

from functools import partial
from time import monotonic
from typing import cast

from toolbus_common.contracts import FOLLOW, TOOLS_CALL, CallAdmitted
from toolbus_common.contracts.replies import CallContext
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamTimeoutError
from toolbus_executor.calls.multi_round import RoundTrips
from toolbus_executor.calls.plan import ExecutionPlan
from toolbus_executor.mcp_messages.request_builder import name_of
from toolbus_executor.mcp_messages.task_formats import RESULT
from toolbus_executor.resilience.breaker_reporter import BreakerReporter
from toolbus_executor.resilience.bulkhead import Bulkhead
from toolbus_executor.upstreams.base import (
    SameDeathError,
    Send,
    Upstream,
    is_isolated_failure,
    separates,
)
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.deadline_extension import DeadlineExtension, timeout_message
from toolbus_executor.upstreams.sessions.separate_sessions import Separated
from toolbus_executor.upstreams.subscriptions import Watched

SUBSCRIBE = "resources/subscribe"


class Attempts:
    """Attempts to send calls of one server; the circuit breaker counts them."""

    def __init__(
        self,
        name: str,
        breaker: BreakerReporter,
        bulkhead: Bulkhead,
        round_trips: RoundTrips,
        extending: DeadlineExtension,
        watched: Watched,
        followed: Watched,
    ) -> None:
        self._name = name
        self._breaker = breaker
        self._bulkhead = bulkhead
        self._round_trips = round_trips
        self._extending = extending
        self._watched = watched
        self._followed = followed

    def sender(self, upstream: Upstream, method: str) -> Send:
        """Return the function that sends calls that are not plain (see `plain_sender`)."""
        if method in (SUBSCRIBE, FOLLOW):
            return partial(self._subscribe, upstream)
        return partial(self._round_trips.send, upstream)

    async def send(
        self, plan: ExecutionPlan, call: CallAdmitted, seconds: float, context: CallContext
    ) -> bytes:
        """Send the call once, and count the result for the circuit breaker.

        An error that the server replies with counts as a success of the transport.
        """
        began = monotonic()
        try:
            caller = Caller(call, context, self._extending)
            assert plan.send is not None  # noqa: S101 - see `_admit`
            try:
                raw = await plan.send(call, seconds, caller)
            finally:  # within the outer `try`: a cancelled flush must release the probe
                if caller.used:
                    await caller.flushed()
        except TimeoutError as error:
            if call.method == RESULT:  # waits for a task: its duration is not measured
                self._breaker.abandoned()
                raise UpstreamTimeoutError(
                    f"The task has not ended within {seconds:.3g} s; request its result again."
                ) from error
            self._breaker.failed(spared=is_isolated_failure(plan.upstream, call))
            if call.method == TOOLS_CALL:
                self._bulkhead.record(call.tool, seconds)
            took = monotonic() - began
            raise UpstreamTimeoutError(
                timeout_message(self._name, seconds, took, plan.timeouts)
            ) from error
        except UpstreamDeadError as error:
            same = isinstance(error, SameDeathError)
            self._breaker.failed(spared=same or is_isolated_failure(plan.upstream, call))
            raise
        except ToolbusError as error:
            self._breaker.answered(error, spared=is_isolated_failure(plan.upstream, call))
            raise
        except BaseException:  # without a result, so that the probe is still available
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        return raw

    async def _subscribe(
        self, upstream: Upstream, call: CallAdmitted, seconds: float, _caller: Caller
    ) -> bytes:
        """Subscribe to a resource or a task, in its owner's session if sessions have owners."""
        if separates(upstream, call):
            return await cast("Separated", upstream).subscribe(call, seconds)
        if call.method == SUBSCRIBE:
            return await self._watched.subscribe(call.tool, upstream.watch, seconds)
        return await self._followed.subscribe(name_of(call), upstream.follow, seconds)
