"""One server's runner: every admitted call ends in one outcome, whatever the server does."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic, perf_counter, time
from typing import Any

from toolbus_common.contracts import (
    FOLLOW,
    TOOLS_CALL,
    Answered,
    Asked,
    Begun,
    CallAdmitted,
    CallCompleted,
    CallFailed,
    Ending,
    Failed,
)
from toolbus_common.declared import Server
from toolbus_common.errors import (
    CallCancelledError,
    InvalidArgumentsError,
    OutcomeUnknownError,
    OverloadedError,
    ToolbusError,
    UnknownToolError,
    UpstreamDeadError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from toolbus_common.exchange import Reply
from toolbus_common.factlane import FactWriter
from toolbus_common.grants import full_name
from toolbus_common.kept import KeptOutcomes
from toolbus_common.metrics import UPSTREAM_CALLS, UPSTREAM_SECONDS
from toolbus_common.outcomes import about
from toolbus_executor.bulkhead import Bulkhead
from toolbus_executor.charging import charge_of, charge_of_failure
from toolbus_executor.early import EarlyCancellations
from toolbus_executor.guard import Guard
from toolbus_executor.park import brought, expired, owner_of
from toolbus_executor.probing import Health
from toolbus_executor.replicas.upstream import spares, told_of
from toolbus_executor.requests import name_of
from toolbus_executor.results import ending_of
from toolbus_executor.retrying import Retries
from toolbus_executor.rounds import Rounds
from toolbus_executor.steering import refuse_new
from toolbus_executor.subscribing import Watched
from toolbus_executor.task_forms import RESULT, UPDATE
from toolbus_executor.task_questions import keeper_of
from toolbus_executor.upstream import Upstream
from toolbus_executor.validation import Checks

log = logging.getLogger(__name__)

SUBSCRIBE = "resources/subscribe"
Hear = Callable[[frozenset[str]], Awaitable[None]]

# Hands a call to the process that keeps its earlier rounds; the last is for "nobody is there".
Forward = Callable[[CallAdmitted, str, Callable[[], Awaitable[None]]], Awaitable[None]]


class Runner:
    """Calls of one server: bulkhead, breaker, deadline, rounds, outcome."""

    def __init__(
        self, name: str, declared: Server, facts: FactWriter, watched: Watched, followed: Watched
    ) -> None:
        self.name = name
        self.guard = Guard(name, facts)
        self.bulkhead = Bulkhead(name, declared.concurrency)
        self.checks = Checks(name, declared.validation)
        self.rounds = Rounds(facts.producer)
        self.upstream: Upstream | None = None
        self.why_not = "not connected yet"
        self.retries = Retries(name, declared)
        self.forward: Forward | None = None
        self.outcomes: KeptOutcomes | None = None  # of calls with an idempotency key
        self.health = Health(declared.probe, self.guard, lambda: not self.bulkhead.in_flight)
        self.drained = False  # by an operator's word
        self.refused: frozenset[tuple[str, str]] = frozenset()  # methods and names held back
        self.early = EarlyCancellations()
        self._watched = watched
        self._followed = followed
        self._timeout = declared.timeout
        self._facts = facts
        self._running: dict[str, asyncio.Task[Any] | None] = {}
        self._revoked: set[str] = set()
        self._ok = UPSTREAM_CALLS.labels(name, "ok")
        self._tool_error = UPSTREAM_CALLS.labels(name, "tool_error")
        self._seconds = UPSTREAM_SECONDS.labels(name)

    async def run(self, call: CallAdmitted, reply: Reply) -> None:
        """Handle one admitted call, or pass it to the process that began it."""
        if (call.extra or call.method == UPDATE) and self.forward is not None:
            owner = owner_of(brought(call.extra)[0]) or keeper_of(call)
            if owner not in ("", self._facts.producer):
                await self._pass_on(call, reply, owner, self.forward)
                return
        await self.run_here(call, reply)

    async def run_here(self, call: CallAdmitted, reply: Reply) -> None:
        """Handle one admitted call."""
        began = perf_counter()
        if self.early and self.early.took(call.call_id):
            await self._fail(call, reply, _taken_back_early(), began)
            return
        try:
            raw = await self._revocable(call, reply)
            ending, is_error = ending_of(raw, call)
            if isinstance(ending, Answered) and not is_error:
                self.checks.hold_to_word(call, raw)
        except ToolbusError as error:
            await self._fail(call, reply, error, began)
            return
        except asyncio.CancelledError:
            if await self._revoke(call, reply, began):
                return
            stopped = OutcomeUnknownError(
                "The executor stopped while the call was under way; it may have happened."
            )
            await self._fail(call, reply, stopped, began)
            raise
        except Exception:
            log.exception("call.failed_inside", extra={"call_id": call.call_id})
            inside = ToolbusError("Something failed inside; the log of executor says what.")
            await self._fail(call, reply, inside, began)
            return
        self._complete(call, ending, perf_counter() - began, is_error=is_error)
        if call.claim is not None and self.outcomes is not None:
            await self.outcomes.end(call, call.claim, ending)
        await reply.send(ending)

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
            **told_of(self.upstream),
            "unchecked": self.checks.unchecked,
        }

    def close(self) -> None:
        """Give up the calls that wait for their callers."""
        self.rounds.close()

    async def _pass_on(
        self, call: CallAdmitted, reply: Reply, owner: str, forward: Forward
    ) -> None:
        began = perf_counter()

        async def nobody() -> None:
            if call.method == UPDATE:  # it answers nothing: what was asked there is asked anew
                await self.run_here(call, reply)
            else:
                await self._fail(call, reply, expired(), began)

        try:
            await forward(call, owner, nobody)
        except ToolbusError as error:
            await self._fail(call, reply, error, began)

    async def _revoke(self, call: CallAdmitted, reply: Reply, began: float) -> bool:
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
        await self._fail(call, reply, taken_back, began)
        return True

    async def _revocable(self, call: CallAdmitted, reply: Reply) -> bytes:
        """Ask, in a way that `cancel` finds."""
        self._running[call.call_id] = asyncio.current_task()
        try:
            return await self._attempt(call, reply)
        finally:
            del self._running[call.call_id]

    async def _attempt(self, call: CallAdmitted, reply: Reply) -> bytes:
        """Wait for a turn and ask the server."""
        if self.drained:
            refuse_new(call)
        self._refuse_misfit(call)
        left = min(self._timeout, call.deadline - time())
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
            self.refuse_held(call)
            upstream = self._admit()
            self.retries.budget.earn()
            began = monotonic()
            try:
                raw = await self._ask(upstream, call, seconds, reply)
            except UpstreamDeadError as error:
                once_more = partial(self._once_more, call, reply)
                raw = await self.retries.after(error, call, began + seconds, once_more)
            else:
                self._learn(call, monotonic() - began)
            return raw
        finally:
            self.bulkhead.leave()

    def _refuse_misfit(self, call: CallAdmitted) -> None:
        """Refuse arguments that do not fit; of what is held back nobody is told what would."""
        try:
            self.checks.refuse_misfit(call)
        except InvalidArgumentsError:
            self.refuse_held(call)
            raise

    def _once_more(
        self, call: CallAdmitted, reply: Reply, seconds: float
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
        self, upstream: Upstream, call: CallAdmitted, seconds: float, reply: Reply
    ) -> bytes:
        """Ask the server; an error it answers with is a success of the transport."""
        try:
            if call.method == SUBSCRIBE:
                raw = await self._hear(self._watched, call.tool, upstream.watch, seconds)
            elif call.method == FOLLOW:
                task = name_of(call)
                raw = await self._hear(self._followed, task, upstream.follow, seconds)
            else:
                raw = await self.rounds.ask(upstream, call, seconds, reply)
        except TimeoutError as error:
            if call.method == RESULT:  # to be waited for is what it is for
                self.guard.abandoned()
                raise UpstreamTimeoutError(_still_at_work(seconds)) from error
            self.guard.failed(spared=spares(upstream))
            self._learn(call, seconds)
            raise UpstreamTimeoutError(
                f"{self.name} did not answer within {seconds:.3g} s; the call may have happened."
            ) from error
        except UpstreamDeadError:
            self.guard.failed(spared=spares(upstream))
            raise
        except ToolbusError as error:
            self.guard.answered(error, spared=spares(upstream))
            raise
        except BaseException:  # says nothing of the server: a probe must not be lost with it
            self.guard.abandoned()
            raise
        self.guard.succeeded()
        return raw

    async def _hear(self, watched: Watched, name: str, hear: Hear, seconds: float) -> bytes:
        """Watch something for a while; who still wants to hear of it asks again."""
        known = name in watched.names
        if watched.full and not known:
            raise OverloadedError(f"{self.name} has no room for more subscriptions; retry later.")
        watched.add(name)
        try:
            async with asyncio.timeout(seconds):
                await hear(watched.names)
        except BaseException:
            if not known:
                watched.drop(name)
            raise
        return b"{}"

    def _too_late(self) -> UpstreamTimeoutError:
        return UpstreamTimeoutError(
            f"{self.name} was too busy to be asked before the call's deadline.", sent=False
        )

    def _admit(self) -> Upstream:
        if self.upstream is None:
            raise UpstreamDeadError(f"{self.name} cannot be called now: {self.why_not}", sent=False)
        self.guard.admit()
        return self.upstream

    def _complete(self, call: CallAdmitted, ending: Ending, took: float, *, is_error: bool) -> None:
        self._seconds.observe(took)
        (self._tool_error if is_error else self._ok).inc()
        asks = isinstance(ending, Asked)
        self._facts.say(
            CallCompleted(
                id=f"{call.call_id}.completed",
                **about(call),
                ending="input_required"
                if asks
                else "task"
                if isinstance(ending, Begun)
                else "complete",
                charge=charge_of(call, ending),
                latency_us=int(took * 1e6),
                is_error=is_error,
                result_bytes=len(ending.body),
            )
        )

    async def _fail(
        self, call: CallAdmitted, reply: Reply, error: ToolbusError, began: float
    ) -> None:
        sent = bool(error.data.pop("sent", True))
        # Below, nobody knows the name an operator gave the server; the caller must be told it.
        if not isinstance(error, UpstreamRefusedError):  # that one speaks for itself
            reason = error.reason.replace("The upstream", f"The upstream {self.name}", 1)
            error = _renamed(error, reason)
        self.guard.failures.note(error)
        UPSTREAM_CALLS.labels(self.name, error.code).inc()
        self._facts.say(
            CallFailed(
                id=f"{call.call_id}.failed",
                **about(call),
                charge=charge_of_failure(call, error) if sent else 0,
                latency_us=int((perf_counter() - began) * 1e6),
                code=error.code,
                reason=error.reason,
                sent=sent,
            )
        )
        if call.claim is not None and self.outcomes is not None:
            await self.outcomes.end(call, call.claim, Failed(error), sent=sent)
        await reply.send(Failed(error))


def _taken_back_early() -> CallCancelledError:
    return CallCancelledError("The caller took the call back before it was made.", sent=False)


def _still_at_work(seconds: float) -> str:
    return f"The task has not ended within {seconds:.3g} s; ask for its result again."


def _renamed(error: ToolbusError, reason: str) -> ToolbusError:
    return type(error)(reason, **error.data)
