"""Call handler of one server. Each admitted call ends in exactly one outcome."""

import asyncio
import logging
from collections.abc import Awaitable
from functools import partial
from time import monotonic, perf_counter, time
from typing import Any

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import Server
from toolbus_common.contracts import TOOLS_CALL, CallAdmitted, CallResult, TaskCreated
from toolbus_common.contracts.replies import CallContext, Reply
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
from toolbus_executor.calls.attempt import Attempts
from toolbus_executor.calls.charging import charge_of_withheld
from toolbus_executor.calls.early_cancellations import EarlyCancellations, cancelled_early
from toolbus_executor.calls.multi_round import RoundTrips
from toolbus_executor.calls.operator_commands import reject_if_drained
from toolbus_executor.calls.outcome_reporter import OutcomeReporter
from toolbus_executor.calls.plan import ExecutionPlan, ExecutionPlans
from toolbus_executor.calls.session_router import Forward, SessionRouter
from toolbus_executor.guards.call_guards import CallGuards
from toolbus_executor.guards.guarded_call import GuardedCall
from toolbus_executor.guards.held_secrets import HeldSecrets
from toolbus_executor.mcp_messages.result_mapping import CallOutcome, final_reply_of
from toolbus_executor.mcp_messages.task_formats import UPDATE
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
from toolbus_executor.upstreams.base import Upstream
from toolbus_executor.upstreams.deadline_extension import DeadlineExtension
from toolbus_executor.upstreams.mcp_tasks.elicitation import holder_of
from toolbus_executor.upstreams.replicas.upstream import replica_status
from toolbus_executor.upstreams.sessions.idle_shutdown import IdleShutdown
from toolbus_executor.upstreams.sessions.separate_sessions import Separation
from toolbus_executor.upstreams.subscriptions import Watched
from toolbus_executor.upstreams.suspended_calls import answers_in, expired, owner_of
from toolbus_executor.validation import checks_of

log = logging.getLogger(__name__)
READ = "resources/read"


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
        self.attempts = Attempts(
            name, self.breaker, self.bulkhead, self.round_trips, self.extending, watched, followed
        )
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
        self.plans = ExecutionPlans(self.checks, self.extending, self.cache, self.attempts.sender)
        self.spills: SpillRegistry | None = None  # stores large results
        self.guards: CallGuards | None = None
        self.secrets: HeldSecrets | None = None  # that no call may contain
        self.health = Health(declared.probe, self.breaker, lambda: not self.bulkhead.in_flight)
        self.drained = False  # by an operator command
        self.uncallable: frozenset[tuple[str, str]] = frozenset()  # quarantined methods and names
        self.early_cancellations = EarlyCancellations()
        self._producer = events.producer
        self._running: dict[str, asyncio.Task[Any] | None] = {}
        self._cancelled: set[str] = set()

    @executing(TRACER)
    def run(self, call: CallAdmitted, context: CallContext) -> Awaitable[Reply | None]:
        """Return the reply to one admitted call, as an awaitable.

        The reply is None if the call was forwarded to the executor that holds its state.
        """
        plan = self.plans.find(call, self.upstream)
        if plan.is_plain:
            return self._run(plan, call, context)
        return self._run_routed(call, context)

    async def _run_routed(self, call: CallAdmitted, context: CallContext) -> Reply | None:
        """Handle a call, or forward it to the executor that holds its state."""
        if (call.extra or call.method == UPDATE) and self.forward is not None:
            owner = owner_of(answers_in(call.extra)[0]) or holder_of(call)
            if owner not in ("", self._producer):
                return await self._forward_to(call, context, owner, self.forward)
            if owner:
                return await self.run_here(call, context)
        if self.session_router is not None and self.session_router.applies(self.upstream, call):
            return await self.session_router.run(self, call, context)
        return await self.run_here(call, context)

    def run_here(self, call: CallAdmitted, context: CallContext) -> Awaitable[Reply]:
        """Return the reply to one admitted call, handled in this process, as an awaitable."""
        return self._run(self.plans.find(call, self.upstream), call, context)

    async def _run(self, plan: ExecutionPlan, call: CallAdmitted, context: CallContext) -> Reply:
        """Run a call, in a task that `cancel` can cancel, and report its outcome."""
        began = perf_counter()
        early = self.early_cancellations
        if early.cancelled_at and early.take(call.call_id):
            return await self.outcomes.failed(call, cancelled_early(), began)
        self._running[call.call_id] = asyncio.current_task()
        try:
            run = self._guarded_outcome if call.guards else self._outcome
            outcome = await run(plan, call, context)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - logged
            self._running.pop(call.call_id, None)
            return await self.outcomes.failed(call, self._error_of(call, error), began)
        self._running.pop(call.call_id, None)
        self.idling.answered = True
        if call.method != TOOLS_CALL or isinstance(outcome.reply, TaskCreated):
            self.idling.note(call, outcome.reply)
        self.outcomes.completed(call, outcome, perf_counter() - began)
        if call.claim is not None:
            await self.outcomes.store(call, call.claim, outcome.reply)
        return outcome.reply

    def ask(self, call: CallAdmitted, context: CallContext) -> Awaitable[bytes]:
        """Return the raw result of a call that Toolbus itself makes, without outcome and guards."""
        return self._in_slot(self.plans.find(call, self.upstream), call, context)

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
        self, call: CallAdmitted, context: CallContext, owner: str, forward: Forward
    ) -> Reply | None:
        began = perf_counter()

        async def owner_gone() -> None:
            if call.method == UPDATE:  # empty result; the task repeats its request
                await context.send(await self.run_here(call, context))
            else:
                await context.send(await self.outcomes.failed(call, expired(), began))

        try:
            await forward(call, owner, owner_gone)
        except ToolbusError as error:
            return await self.outcomes.failed(call, error, began)
        return None

    def _error_of(self, call: CallAdmitted, raised: BaseException) -> ToolbusError:
        """Return the error of a call that raised an exception."""
        if isinstance(raised, ToolbusError):
            return raised
        if isinstance(raised, asyncio.CancelledError):
            return self._why_cancelled(call)
        log.error("call.internal_error", extra={"call_id": call.call_id}, exc_info=raised)
        return ToolbusError("Internal error in the executor; see the executor log.")

    def _why_cancelled(self, call: CallAdmitted) -> ToolbusError:
        """Return the error of a cancelled call: its caller cancelled it, or the service stops."""
        if call.call_id not in self._cancelled:
            return OutcomeUnknownError(
                "The executor stopped during the call; the call may have been executed. Check the "
                "audit log before repeating it."
            )
        self._cancelled.discard(call.call_id)
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        return CallCancelledError(
            "The caller cancelled the call; it may have been executed. Check the audit log before "
            "repeating it.",
            sent=True,
        )

    def _guarded_outcome(
        self, plan: ExecutionPlan, call: CallAdmitted, context: CallContext
    ) -> Awaitable[CallOutcome]:
        """Return the outcome of a call, after its guards, as an awaitable."""
        charge, fits = partial(charge_of_withheld, call), self.checks.fits(call.tool)
        guarded = GuardedCall(self.guards, call, charge, self.secrets, fits)
        outcome = partial(self._outcome, plan, call, guarded.of(context), guarded)
        return guarded.around(outcome, self.outcomes.checks)

    async def _outcome(
        self,
        plan: ExecutionPlan,
        call: CallAdmitted,
        context: CallContext,
        guarded: GuardedCall | None = None,
    ) -> CallOutcome:
        """Return the outcome of a call: from the cache, from a stored result or from the server."""
        key = None
        if plan.cache is not None and not self.drained:
            self.reject_quarantined(call)
            key = plan.cache.key_of(call)
            cached = plan.cache.find(key) if key is not None else None
            if cached is not None:
                if guarded is not None:
                    cached = await guarded.noticed(await guarded.result(cached))
                return CallOutcome(*final_reply_of(cached, call), cached=True)
        if call.method == READ and self.spills is not None and call.tool.startswith(SCHEME):
            select = self.selector.select if self.selector is not None else None
            return CallOutcome(*final_reply_of(await self.spills.read(call, select, guarded), call))
        selection = selection_of(call) if call.extra else ""
        sent = call if guarded is None else await guarded.sendable()
        raw = whole = await self._in_slot(plan, sent, context)
        if guarded is not None:
            raw, key = await guarded.result(whole, self.spills), key if sent is call else None
        stored = left_out = 0
        if selection and self.selector is not None:
            selected = await apply_selection(self.selector, selection, raw)
            raw, left_out = selected, max(0, len(raw) - len(selected))
        if guarded is not None:
            raw = await guarded.noticed(raw)
        if self.spills is not None and self.spills.applies(raw, call):
            raw, stored = await self.spills.settle(raw, call, guarded)
        outcome = CallOutcome(*final_reply_of(raw, call), stored, left_out=left_out)
        if (
            plan.checks_results
            and isinstance(outcome.reply, CallResult)
            and not (stored or outcome.is_error)
        ):
            self.checks.check_result(call, whole)
        if plan.cache is not None and key is not None:
            plan.cache.store(key, whole, outcome)
        return outcome

    async def _in_slot(
        self, plan: ExecutionPlan, call: CallAdmitted, context: CallContext
    ) -> bytes:
        """Check a call, wait for a concurrency slot, and send it; retry it where that is safe."""
        seconds = self._time_limit(plan, call)
        if not self.bulkhead.try_enter():
            seconds = await self._wait_for_slot(call, seconds)
            plan = self.plans.find(call, self.upstream)  # the server may have changed meanwhile
        try:
            if plan.upstream is None and self.idling.awaited:
                seconds = await self._wake(seconds)
                plan = self.plans.find(call, self.upstream)
            self._admit(plan, call)
            began = self.idling.requested_at = monotonic()
            try:
                raw = await self.attempts.send(plan, call, seconds, context)
            except UpstreamDeadError as error:
                send_again = partial(self._send_again, call, context)
                return await self.retries.after(error, call, began + seconds, send_again)
            if call.method == TOOLS_CALL:
                self.bulkhead.record(call.tool, monotonic() - began)
            return raw
        finally:
            self.bulkhead.leave()

    def _time_limit(self, plan: ExecutionPlan, call: CallAdmitted) -> float:
        """Check a call before it waits for a slot; return the call's time limit in seconds."""
        if self.drained:
            reject_if_drained(call)
        if plan.checks_arguments:
            try:
                if misfit := self.checks.check_arguments(call):
                    self.outcomes.misfits[call.call_id] = misfit
            except InvalidArgumentsError:
                self.reject_quarantined(call)  # the error would reveal a quarantined schema
                raise
        seconds = min(plan.timeouts.idle, call.deadline - time())
        if seconds <= 0:
            raise self._no_slot_in_time()
        return seconds

    async def _wait_for_slot(self, call: CallAdmitted, seconds: float) -> float:
        """Take a slot within the time limit; return the time limit of the request.

        Only the deadline limits the wait. The wait does not reduce the time limit.
        """
        try:
            await self.bulkhead.enter(seconds)
        except TimeoutError as error:
            raise self._no_slot_in_time() from error
        seconds = min(seconds, call.deadline - time())
        if seconds <= 0:
            self.bulkhead.leave()
            raise self._no_slot_in_time()
        return seconds

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

    def _admit(self, plan: ExecutionPlan, call: CallAdmitted) -> None:
        """Reject a call that the server cannot take now."""
        if self.uncallable:
            self.reject_quarantined(call)
        if plan.upstream is None:
            raise UpstreamDeadError(
                f"The server {self.name} cannot be called now: {self.why_not}", sent=False
            )
        self.breaker.admit()
        self.retries.budget.earn()

    def _send_again(
        self, call: CallAdmitted, context: CallContext, seconds: float
    ) -> Awaitable[bytes] | None:
        """Send the call again; None if the server is lost, quarantined or has an open breaker."""
        if self.upstream is None or not self.breaker.closed:
            return None
        if (call.method, call.tool) in self.uncallable:
            return None
        return self.attempts.send(self.plans.find(call, self.upstream), call, seconds, context)

    def _no_slot_in_time(self) -> UpstreamTimeoutError:
        return UpstreamTimeoutError(
            f"The server {self.name} was too busy: no concurrency slot was free before the "
            "deadline. Retry later.",
            sent=False,
        )
