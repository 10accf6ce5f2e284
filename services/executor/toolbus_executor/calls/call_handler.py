"""One server's runner: every admitted call ends in one outcome, whatever the server does."""

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
from toolbus_executor.calls.early_cancellations import EarlyCancellations, taken_back_early
from toolbus_executor.calls.multi_round import Rounds
from toolbus_executor.calls.operator_commands import refuse_new
from toolbus_executor.calls.outcome_reporter import Reports
from toolbus_executor.calls.session_router import Forward, Placing
from toolbus_executor.mcp_messages.request_builder import name_of
from toolbus_executor.mcp_messages.result_mapping import Ended, ending_of
from toolbus_executor.mcp_messages.task_formats import RESULT, UPDATE
from toolbus_executor.resilience.breaker_reporter import Guard
from toolbus_executor.resilience.bulkhead import Bulkhead
from toolbus_executor.resilience.health_probe import Health
from toolbus_executor.resilience.retry import Retries
from toolbus_executor.results.large.spill_registry import Spills
from toolbus_executor.results.response_cache import Key, ResponseCache, cache_of
from toolbus_executor.results.selection.apply import selected
from toolbus_executor.results.selection.expressions import selection_of
from toolbus_executor.results.selection.worker_client import Selector
from toolbus_executor.tracing import TRACER
from toolbus_executor.upstreams.base import SameDeathError, Upstream, separates, spares
from toolbus_executor.upstreams.deadline_extension import Extending, too_late
from toolbus_executor.upstreams.mcp_tasks.elicitation import keeper_of
from toolbus_executor.upstreams.replicas.upstream import told_of
from toolbus_executor.upstreams.sessions.idle_shutdown import Idling
from toolbus_executor.upstreams.sessions.separate_sessions import Separated, Separation
from toolbus_executor.upstreams.subscriptions import Watched
from toolbus_executor.upstreams.suspended_calls import brought, expired, owner_of
from toolbus_executor.validation import checks_of

log = logging.getLogger(__name__)

READ, SUBSCRIBE = "resources/read", "resources/subscribe"


class Runner:
    """Calls of one server: bulkhead, breaker, deadline, rounds, outcome."""

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
        self.guard = Guard(name, events)
        self.reports = Reports(name, events, self.guard.failures)
        self.bulkhead = Bulkhead(name, declared.concurrency)
        self.checks = checks_of(name, declared)
        self.extending = Extending(declared, self.reports.extended)
        self.rounds = Rounds(events.producer, self.extending)
        relied_on = (watched, followed, *((separation.pool,) if separation is not None else ()))
        self.idling = Idling(declared, self.bulkhead, self.rounds.park, relied_on)
        self.upstream: Upstream | None = None
        self.why_not = "not connected yet"
        self.retries = Retries(name, declared)
        self.forward: Forward | None = None
        self.placing: Placing | None = None  # where sessions of the server have an owner
        self.selector: Selector | None = None  # finds the parts of results that are asked for
        self.cache = cache_of(declared.tools)
        self.spills: Spills | None = None  # where results too large to tell are kept
        self.health = Health(declared.probe, self.guard, lambda: not self.bulkhead.in_flight)
        self.drained = False  # by an operator's word
        self.refused: frozenset[tuple[str, str]] = frozenset()  # methods and names held back
        self.early = EarlyCancellations()
        self._watched = watched
        self._followed = followed
        self._producer = events.producer
        self._running: dict[str, asyncio.Task[Any] | None] = {}
        self._revoked: set[str] = set()

    @executing(TRACER)
    async def run(self, call: CallAdmitted, reply: ReplyChannel) -> None:
        """Handle one admitted call, or pass it to the process that began it."""
        if (call.extra or call.method == UPDATE) and self.forward is not None:
            owner = owner_of(brought(call.extra)[0]) or keeper_of(call)
            if owner not in ("", self._producer):
                await self._pass_on(call, reply, owner, self.forward)
                return
            if owner:
                await self.run_here(call, reply)
                return
        if self.placing is not None and self.placing.applies(self.upstream, call):
            await self.placing.run(self, call, reply)
        else:
            await self.run_here(call, reply)

    async def run_here(self, call: CallAdmitted, reply: ReplyChannel) -> None:
        """Handle one admitted call."""
        began = perf_counter()
        if self.early and self.early.took(call.call_id):
            await self.reports.failed(call, reply, taken_back_early(), began)
            return
        try:
            ended = await self._revocable(call, reply)
        except ToolbusError as error:
            await self.reports.failed(call, reply, error, began)
            return
        except asyncio.CancelledError:
            if await self._revoke(call, reply, began):
                return
            stopped = OutcomeUnknownError(
                "The executor stopped while the call was under way; it may have happened."
            )
            await self.reports.failed(call, reply, stopped, began)
            raise
        except Exception:
            log.exception("call.failed_inside", extra={"call_id": call.call_id})
            inside = ToolbusError("Something failed inside; the log of executor says what.")
            await self.reports.failed(call, reply, inside, began)
            return
        self._learn_habits(call, ended)
        self.reports.completed(call, ended, perf_counter() - began)
        if call.claim is not None:
            await self.reports.keep(call, call.claim, ended.ending)
        await reply.send(ended.ending)

    def cancel(self, call_id: str) -> bool:
        """End a call nobody waits for any more, if it is parked here; whether it is under way."""
        self.rounds.park.cancel(call_id)
        task = self._running.get(call_id)
        if task is not None and call_id not in self._revoked:
            self._revoked.add(call_id)
            task.cancel()
        return call_id in self._running

    def refuse_held(self, call: CallAdmitted) -> None:
        """Refuse what is held back, whatever policy knew. Raises `UnknownToolError`."""
        if self.refused and (call.method, call.tool) in self.refused:
            error = UnknownToolError.named(full_name(self.name, call.tool), call.method)
            error.data["sent"] = False
            raise error

    def told(self) -> dict[str, Any]:
        """How its calls go, for `toolbus status`."""
        return {
            "breaker": self.guard.breaker.state.value,
            "in_flight": self.bulkhead.in_flight,
            "waiting": self.bulkhead.waiting,
            "places": self.bulkhead.places,
            "retries": self.retries.made,
            "failures": self.guard.failures.told(),
            "probe": self.health.latest,
            "drained": self.drained,
            "asleep": self.idling.asleep,
            **told_of(self.upstream),
            "unchecked": self.checks.unchecked,
        }

    def close(self) -> None:
        """Give up the calls that wait for their callers."""
        self.rounds.close()

    async def _pass_on(
        self, call: CallAdmitted, reply: ReplyChannel, owner: str, forward: Forward
    ) -> None:
        began = perf_counter()

        async def nobody() -> None:
            if call.method == UPDATE:  # it answers nothing: what was asked there is asked anew
                await self.run_here(call, reply)
            else:
                await self.reports.failed(call, reply, expired(), began)

        try:
            await forward(call, owner, nobody)
        except ToolbusError as error:
            await self.reports.failed(call, reply, error, began)

    async def _revoke(self, call: CallAdmitted, reply: ReplyChannel, began: float) -> bool:
        """Whether it was the caller that took the call back; then it has ended."""
        if call.call_id not in self._revoked:
            return False
        self._revoked.discard(call.call_id)
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        taken_back = CallCancelledError(
            "The caller took the call back; it may have happened.", sent=True
        )
        await self.reports.failed(call, reply, taken_back, began)
        return True

    async def _revocable(self, call: CallAdmitted, reply: ReplyChannel) -> Ended:
        """Have it answered, in a way that `cancel` finds."""
        self._running[call.call_id] = asyncio.current_task()
        try:
            if self.cache is None:
                return (await self._answered(call, reply))[1]
            return await self._told_again(call, reply, self.cache)
        finally:
            del self._running[call.call_id]

    async def _told_again(
        self, call: CallAdmitted, reply: ReplyChannel, cache: ResponseCache
    ) -> Ended:
        """Give the answer that is known, or keep the one that comes."""
        key = self._known_as(call, cache)
        known = cache.find(key) if key is not None else None
        if known is not None:
            return Ended(*ending_of(known, call), cached=True)
        raw, ended = await self._answered(call, reply)
        if key is not None:
            cache.keep(key, raw, ended)
        return ended

    async def _answered(self, call: CallAdmitted, reply: ReplyChannel) -> tuple[bytes, Ended]:
        """Ask the server, and make of its answer, which comes along, what the caller is told."""
        if call.method == READ and self.spills is not None and call.tool.startswith(SCHEME):
            part = self.selector.select if self.selector is not None else None
            raw = await self.spills.read(call, part)
            return raw, Ended(*ending_of(raw, call))
        select = selection_of(call) if call.extra else ""
        raw, kept = await self._attempt(call, reply), 0
        whole = raw
        if select and self.selector is not None:
            raw = await selected(self.selector, select, raw)
        left_out = max(0, len(whole) - len(raw))
        if self.spills is not None and self.spills.concern(raw, call):
            raw, kept = await self.spills.settle(raw, call)
        ended = Ended(*ending_of(raw, call), kept, left_out=left_out)
        if not kept and not ended.is_error and isinstance(ended.ending, CallResult):
            self.checks.hold_to_word(call, whole)
        return whole, ended

    def _known_as(self, call: CallAdmitted, cache: ResponseCache) -> Key | None:
        """What an answer is known as, if it may be; what is held back is not."""
        if self.drained:
            return None
        self.refuse_held(call)
        return cache.key_of(call)

    async def _attempt(self, call: CallAdmitted, reply: ReplyChannel) -> bytes:
        """Wait for a turn and ask the server."""
        if self.drained:
            refuse_new(call)
        self._check_arguments(call)
        left = min(self.extending.timeouts(call).idle, call.deadline - time())
        if left <= 0:
            raise self._too_late()
        try:
            await self.bulkhead.enter(left)
        except TimeoutError as error:
            raise self._too_late() from error
        try:
            # The deadline, and not what was left before the turn came.
            seconds = min(left, call.deadline - time())
            if seconds <= 0:
                raise self._too_late()
            if self.upstream is None and self.idling.awaited:
                seconds = await self._woken(seconds)
            self.refuse_held(call)
            return await self._in_turn(self._admit(), call, seconds, reply)
        finally:
            self.bulkhead.leave()

    async def _in_turn(
        self, upstream: Upstream, call: CallAdmitted, seconds: float, reply: ReplyChannel
    ) -> bytes:
        """Ask, and again where that may be done."""
        self.retries.budget.earn()
        began = self.idling.requested_at = monotonic()
        try:
            raw = await self._ask(upstream, call, seconds, reply)
        except UpstreamDeadError as error:
            once_more = partial(self._once_more, call, reply)
            return await self.retries.after(error, call, began + seconds, once_more)
        self._learn(call, monotonic() - began)
        return raw

    async def _woken(self, seconds: float) -> float:
        """Have a sleeping server back; what is left of the time. Raises `UpstreamTimeoutError`."""
        began = monotonic()
        try:
            await self.idling.wake(seconds)
        except TimeoutError as error:
            raise UpstreamTimeoutError(
                f"{self.name} was asleep and did not start within {seconds:.3g} s; retry.",
                sent=False,
            ) from error
        return seconds - (monotonic() - began)

    def _check_arguments(self, call: CallAdmitted) -> None:
        """Report or refuse what does not fit; of what is held back nobody is told what would."""
        try:
            if misfit := self.checks.check_arguments(call):
                self.reports.misfits[call.call_id] = misfit
        except InvalidArgumentsError:
            self.refuse_held(call)
            raise

    def _once_more(
        self, call: CallAdmitted, reply: ReplyChannel, seconds: float
    ) -> Awaitable[bytes] | None:
        """Ask again, unless the server is gone or no longer to be asked; a probe is no retry."""
        if self.upstream is None or not self.guard.closed:
            return None
        if (call.method, call.tool) in self.refused:
            return None
        return self._ask(self.upstream, call, seconds, reply)

    def _learn(self, call: CallAdmitted, seconds: float) -> None:
        if call.method == TOOLS_CALL:
            self.bulkhead.took(call.tool, seconds)

    async def _ask(
        self, upstream: Upstream, call: CallAdmitted, seconds: float, reply: ReplyChannel
    ) -> bytes:
        """Ask the server; an error it answers with is a success of the transport."""
        began = monotonic()
        try:
            if call.method in (SUBSCRIBE, FOLLOW):
                raw = await self._hear(upstream, call, seconds)
            else:
                raw = await self.rounds.ask(upstream, call, seconds, reply)
        except TimeoutError as error:
            if call.method == RESULT:  # to be waited for is what it is for
                self.guard.abandoned()
                raise UpstreamTimeoutError(_still_at_work(seconds)) from error
            self.guard.failed(spared=spares(upstream, call))
            self._learn(call, seconds)
            raise UpstreamTimeoutError(
                too_late(self.name, seconds, monotonic() - began, self.extending.timeouts(call))
            ) from error
        except UpstreamDeadError as error:
            same = isinstance(error, SameDeathError)
            self.guard.failed(spared=same or spares(upstream, call))
            raise
        except ToolbusError as error:
            self.guard.answered(error, spared=spares(upstream, call))
            raise
        except BaseException:  # says nothing of the server: a probe must not be lost with it
            self.guard.abandoned()
            raise
        self.guard.succeeded()
        return raw

    async def _hear(self, upstream: Upstream, call: CallAdmitted, seconds: float) -> bytes:
        """Have the server tell of a resource or a task: in its owner's session if it has one."""
        if separates(upstream, call):
            return await cast("Separated", upstream).hear(call, seconds)
        if call.method == SUBSCRIBE:
            return await self._watched.hear(call.tool, upstream.watch, seconds)
        return await self._followed.hear(name_of(call), upstream.follow, seconds)

    def _too_late(self) -> UpstreamTimeoutError:
        return UpstreamTimeoutError(
            f"{self.name} was too busy to be asked before the call's deadline.", sent=False
        )

    def _admit(self) -> Upstream:
        if self.upstream is None:
            raise UpstreamDeadError(f"{self.name} cannot be called now: {self.why_not}", sent=False)
        self.guard.admit()
        return self.upstream

    def _learn_habits(self, call: CallAdmitted, ended: Ended) -> None:
        self.idling.answered = True
        if call.method != TOOLS_CALL or isinstance(ended.ending, TaskCreated):
            self.idling.note(call, ended.ending)


def _still_at_work(seconds: float) -> str:
    return f"The task has not ended within {seconds:.3g} s; ask for its result again."
