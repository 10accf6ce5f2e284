"""Call handler of one server. Each admitted call ends in exactly one outcome."""

import asyncio
import logging
from collections.abc import Awaitable
from functools import partial
from time import monotonic, perf_counter, time
from typing import Any, cast

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import Server
from toolbus_common.contracts import (
    FOLLOW,
    TOOLS_CALL,
    CallAdmitted,
    CallResult,
    TaskCreated,
)
from toolbus_common.contracts.replies import ReplyChannel
from toolbus_common.errors import (
    CallCancelledError,
    InvalidArgumentsError,
    OutcomeUnknownError,
    ToolbusError,
    UnknownToolError,
    UpstreamDeadError,
    UpstreamTimeoutError,
)
from toolbus_common.mcp.result_uris import SCHEME
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.observability.tracing.call_span import executing
from toolbus_executor.calls.early_cancellations import EarlyCancellations, cancelled_early
from toolbus_executor.calls.multi_round import RoundTrips
from toolbus_executor.calls.operator_commands import reject_if_drained
from toolbus_executor.calls.outcome_reporter import OutcomeReporter
from toolbus_executor.calls.session_router import Forward, SessionRouter
from toolbus_executor.mcp_messages.request_builder import name_of
from toolbus_executor.mcp_messages.result_mapping import CallOutcome, final_reply_of
from toolbus_executor.mcp_messages.task_formats import RESULT, UPDATE
from toolbus_executor.resilience.breaker_reporter import BreakerReporter
from toolbus_executor.resilience.bulkhead import Bulkhead
from toolbus_executor.resilience.health_probe import Health
from toolbus_executor.resilience.retry import Retries
from toolbus_executor.results.large.spill_registry import SpillRegistry
from toolbus_executor.results.response_cache import cache_of
from toolbus_executor.results.selection.apply import apply_selection
from toolbus_executor.results.selection.expressions import selection_of
from toolbus_executor.results.selection.worker_client import Selector
from toolbus_executor.tracing import TRACER
from toolbus_executor.upstreams.base import SameDeathError, Upstream, is_isolated_failure, separates
from toolbus_executor.upstreams.deadline_extension import DeadlineExtension, timeout_message
from toolbus_executor.upstreams.mcp_tasks.elicitation import holder_of
from toolbus_executor.upstreams.replicas.upstream import replica_status
from toolbus_executor.upstreams.sessions.idle_shutdown import IdleShutdown
from toolbus_executor.upstreams.sessions.separate_sessions import Separated, Separation
from toolbus_executor.upstreams.subscriptions import Watched
from toolbus_executor.upstreams.suspended_calls import answers_in, expired, owner_of
from toolbus_executor.validation import checks_of

log = logging.getLogger(__name__)

READ, SUBSCRIBE = "resources/read", "resources/subscribe"


class CallHandler:
    """Handler of one server's calls: slots, circuit breaker, deadline, round trips, outcome."""

    def __init__(
        self,
        name: str,
        declared: Server,
        events: EventPublisher,
        watched: Watched,
        followed: Watched,
        separation: Separation | None = None,
    ) -> None:
        self.name = name
        self.breaker = BreakerReporter(name, events)
        self.outcomes = OutcomeReporter(name, events, self.breaker.failures)
        self.bulkhead = Bulkhead(name, declared.concurrency)
        self.checks = checks_of(name, declared)
        self.extending = DeadlineExtension(declared, self.outcomes.extended)
        self.round_trips = RoundTrips(events.producer, self.extending)
        relied_on = (watched, followed, *((separation.pool,) if separation is not None else ()))
        self.idling = IdleShutdown(
            declared, self.bulkhead, self.round_trips.suspended_calls, relied_on
        )
        self.upstream: Upstream | None = None
        self.why_not = "not connected yet"
        self.retries = Retries(name, declared)
        self.forward: Forward | None = None
        self.session_router: SessionRouter | None = None  # if sessions of the server have owners
        self.selector: Selector | None = None  # evaluates result selections
        self.cache = cache_of(declared.tools)
        self.spills: SpillRegistry | None = None  # stores large results
        self.health = Health(declared.probe, self.breaker, lambda: not self.bulkhead.in_flight)
        self.drained = False  # by an operator command
        self.uncallable: frozenset[tuple[str, str]] = frozenset()  # quarantined methods and names
        self.early_cancellations = EarlyCancellations()
        self._watched = watched
        self._followed = followed
        self._producer = events.producer
        self._running: dict[str, asyncio.Task[Any] | None] = {}
        self._cancelled: set[str] = set()

    @executing(TRACER)
    async def run(self, call: CallAdmitted, reply: ReplyChannel) -> None:
        """Handle one admitted call, or forward it to the executor that holds its state."""
        if (call.extra or call.method == UPDATE) and self.forward is not None:
            owner = owner_of(answers_in(call.extra)[0]) or holder_of(call)
            if owner not in ("", self._producer):
                await self._forward_to(call, reply, owner, self.forward)
                return
            if owner:
                await self.run_here(call, reply)
                return
        if self.session_router is not None and self.session_router.applies(self.upstream, call):
            await self.session_router.run(self, call, reply)
        else:
            await self.run_here(call, reply)

    async def run_here(self, call: CallAdmitted, reply: ReplyChannel) -> None:
        """Handle one admitted call in this process."""
        began = perf_counter()
        if self.early_cancellations and self.early_cancellations.take(call.call_id):
            await self.outcomes.failed(call, reply, cancelled_early(), began)
            return
        try:
            outcome = await self._cancellable(call, reply)
        except ToolbusError as error:
            await self.outcomes.failed(call, reply, error, began)
            return
        except asyncio.CancelledError:
            if await self._end_cancelled(call, reply, began):
                return
            stopped = OutcomeUnknownError(
                "The executor stopped during the call; the call may have been executed."
            )
            await self.outcomes.failed(call, reply, stopped, began)
            raise
        except Exception:
            log.exception("call.internal_error", extra={"call_id": call.call_id})
            inside = ToolbusError("Internal error in the executor; see the executor log.")
            await self.outcomes.failed(call, reply, inside, began)
            return
        self.idling.answered = True
        if call.method != TOOLS_CALL or isinstance(outcome.reply, TaskCreated):
            self.idling.note(call, outcome.reply)
        self.outcomes.completed(call, outcome, perf_counter() - began)
        if call.claim is not None:
            await self.outcomes.store(call, call.claim, outcome.reply)
        await reply.send(outcome.reply)

    def cancel(self, call_id: str) -> bool:
        """Cancel a call whose caller disconnected. Return whether it is in progress here."""
        self.round_trips.suspended_calls.cancel(call_id)
        task = self._running.get(call_id)
        if task is not None and call_id not in self._cancelled:
            self._cancelled.add(call_id)
            task.cancel()
        return call_id in self._running

    def set_uncallable(self, names: frozenset[tuple[str, str]]) -> None:
        """Replace the quarantined methods and names, whose calls are rejected."""
        self.uncallable = names

    def reject_quarantined(self, call: CallAdmitted) -> None:
        """Reject a call of a quarantined definition, even if policy admitted the call.

        Raises:
            UnknownToolError: the definition is quarantined.

        """
        if self.uncallable and (call.method, call.tool) in self.uncallable:
            error = UnknownToolError.named(full_name(self.name, call.tool), call.method)
            error.data["sent"] = False
            raise error

    def status(self) -> dict[str, Any]:
        """Return the fields about calls for the server's row in `toolbus status`."""
        return {
            "breaker": self.breaker.circuit.state.value,
            "in_flight": self.bulkhead.in_flight,
            "waiting": self.bulkhead.waiting,
            "slots": self.bulkhead.slots,
            "retries": self.retries.made,
            "failures": self.breaker.failures.recent(),
            "probe": self.health.latest,
            "drained": self.drained,
            "idle": self.idling.asleep,
            **replica_status(self.upstream),
            "unchecked": self.checks.unchecked,
        }

    def close(self) -> None:
        """Cancel the calls that wait for their callers."""
        self.round_trips.close()

    async def _forward_to(
        self, call: CallAdmitted, reply: ReplyChannel, owner: str, forward: Forward
    ) -> None:
        began = perf_counter()

        async def owner_gone() -> None:
            if call.method == UPDATE:  # it has an empty result, and a task sends its request again
                await self.run_here(call, reply)
            else:
                await self.outcomes.failed(call, reply, expired(), began)

        try:
            await forward(call, owner, owner_gone)
        except ToolbusError as error:
            await self.outcomes.failed(call, reply, error, began)

    async def _end_cancelled(self, call: CallAdmitted, reply: ReplyChannel, began: float) -> bool:
        """Report a call that its caller cancelled. Return False if something else cancelled it."""
        if call.call_id not in self._cancelled:
            return False
        self._cancelled.discard(call.call_id)
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        cancelled = CallCancelledError(
            "The caller cancelled the call; it may have been executed.", sent=True
        )
        await self.outcomes.failed(call, reply, cancelled, began)
        return True

    async def _cancellable(self, call: CallAdmitted, reply: ReplyChannel) -> CallOutcome:
        """Return the outcome from the cache or the server, in a task that `cancel` can cancel."""
        self._running[call.call_id] = asyncio.current_task()
        try:
            cache, key = self.cache, None
            if cache is not None and not self.drained:
                self.reject_quarantined(call)
                key = cache.key_of(call)
            if cache is None or key is None:
                return (await self._result(call, reply))[1]
            cached = cache.find(key)
            if cached is not None:
                return CallOutcome(*final_reply_of(cached, call), cached=True)
            raw, outcome = await self._result(call, reply)
            cache.store(key, raw, outcome)
            return outcome
        finally:
            del self._running[call.call_id]

    async def _result(self, call: CallAdmitted, reply: ReplyChannel) -> tuple[bytes, CallOutcome]:
        """Return the server's raw result, and the outcome made of it for the caller."""
        if call.method == READ and self.spills is not None and call.tool.startswith(SCHEME):
            select = self.selector.select if self.selector is not None else None
            raw = await self.spills.read(call, select)
            return raw, CallOutcome(*final_reply_of(raw, call))
        selection = selection_of(call) if call.extra else ""
        raw, stored = await self._attempt(call, reply), 0
        whole = raw
        if selection and self.selector is not None:
            raw = await apply_selection(self.selector, selection, raw)
        left_out = max(0, len(whole) - len(raw))
        if self.spills is not None and self.spills.applies(raw, call):
            raw, stored = await self.spills.settle(raw, call)
        outcome = CallOutcome(*final_reply_of(raw, call), stored, left_out=left_out)
        if not stored and not outcome.is_error and isinstance(outcome.reply, CallResult):
            self.checks.check_result(call, whole)
        return whole, outcome

    async def _attempt(self, call: CallAdmitted, reply: ReplyChannel) -> bytes:
        """Check the call, wait for a concurrency slot, and send the call."""
        if self.drained:
            reject_if_drained(call)
        try:
            if misfit := self.checks.check_arguments(call):
                self.outcomes.misfits[call.call_id] = misfit
        except InvalidArgumentsError:
            self.reject_quarantined(call)  # the error would reveal a quarantined schema
            raise
        left = min(self.extending.timeouts(call).idle, call.deadline - time())
        if left <= 0:
            raise self._no_slot_in_time()
        try:
            await self.bulkhead.enter(left)
        except TimeoutError as error:
            raise self._no_slot_in_time() from error
        try:
            # Only the deadline limits the wait for a slot. The wait does not reduce the time limit.
            seconds = min(left, call.deadline - time())
            if seconds <= 0:
                raise self._no_slot_in_time()
            if self.upstream is None and self.idling.awaited:
                seconds = await self._wake(seconds)
            self.reject_quarantined(call)
            return await self._send(call, seconds, reply)
        finally:
            self.bulkhead.leave()

    async def _send(self, call: CallAdmitted, seconds: float, reply: ReplyChannel) -> bytes:
        """Send the call, and retry it where that is safe."""
        if self.upstream is None:
            raise UpstreamDeadError(
                f"The server {self.name} cannot be called now: {self.why_not}", sent=False
            )
        self.breaker.admit()
        self.retries.budget.earn()
        began = self.idling.requested_at = monotonic()
        try:
            raw = await self._send_once(self.upstream, call, seconds, reply)
        except UpstreamDeadError as error:
            send_again = partial(self._send_again, call, reply)
            return await self.retries.after(error, call, began + seconds, send_again)
        if call.method == TOOLS_CALL:
            self.bulkhead.record(call.tool, monotonic() - began)
        return raw

    async def _wake(self, seconds: float) -> float:
        """Start an idle server, and return the remaining seconds. Raises `UpstreamTimeoutError`."""
        began = monotonic()
        try:
            await self.idling.wake(seconds)
        except TimeoutError as error:
            raise UpstreamTimeoutError(
                f"The server {self.name} was stopped because it was idle, and did not start "
                f"within {seconds:.3g} s; retry.",
                sent=False,
            ) from error
        return seconds - (monotonic() - began)

    def _send_again(
        self, call: CallAdmitted, reply: ReplyChannel, seconds: float
    ) -> Awaitable[bytes] | None:
        """Send the call again; None if the server is lost, quarantined or has an open breaker."""
        if self.upstream is None or not self.breaker.closed:
            return None
        if (call.method, call.tool) in self.uncallable:
            return None
        return self._send_once(self.upstream, call, seconds, reply)

    async def _send_once(
        self, upstream: Upstream, call: CallAdmitted, seconds: float, reply: ReplyChannel
    ) -> bytes:
        """Send the call once.

        An error that the server replies with counts as a success of the transport.
        """
        began = monotonic()
        try:
            if call.method in (SUBSCRIBE, FOLLOW):
                raw = await self._subscribe(upstream, call, seconds)
            else:
                raw = await self.round_trips.send(upstream, call, seconds, reply)
        except TimeoutError as error:
            if call.method == RESULT:  # it waits for a task, so its duration is not measured
                self.breaker.abandoned()
                raise UpstreamTimeoutError(
                    f"The task has not ended within {seconds:.3g} s; request its result again."
                ) from error
            self.breaker.failed(spared=is_isolated_failure(upstream, call))
            if call.method == TOOLS_CALL:
                self.bulkhead.record(call.tool, seconds)
            raise UpstreamTimeoutError(
                timeout_message(
                    self.name, seconds, monotonic() - began, self.extending.timeouts(call)
                )
            ) from error
        except UpstreamDeadError as error:
            same = isinstance(error, SameDeathError)
            self.breaker.failed(spared=same or is_isolated_failure(upstream, call))
            raise
        except ToolbusError as error:
            self.breaker.answered(error, spared=is_isolated_failure(upstream, call))
            raise
        except BaseException:  # without a result, so that the probe is still available
            self.breaker.abandoned()
            raise
        self.breaker.succeeded()
        return raw

    async def _subscribe(self, upstream: Upstream, call: CallAdmitted, seconds: float) -> bytes:
        """Subscribe to a resource or a task, in the session of its owner if there is one."""
        if separates(upstream, call):
            return await cast("Separated", upstream).subscribe(call, seconds)
        if call.method == SUBSCRIBE:
            return await self._watched.subscribe(call.tool, upstream.watch, seconds)
        return await self._followed.subscribe(name_of(call), upstream.follow, seconds)

    def _no_slot_in_time(self) -> UpstreamTimeoutError:
        return UpstreamTimeoutError(
            f"The server {self.name} was too busy: no concurrency slot was free before the "
            "deadline. Retry later.",
            sent=False,
        )
