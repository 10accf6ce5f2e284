"""One server's runner: every admitted call ends in one outcome, whatever the server does."""

import asyncio
import logging
from time import monotonic, perf_counter, time
from typing import Any

from toolbus_common.contracts import (
    Answered,
    BreakerClosed,
    BreakerOpened,
    CallAdmitted,
    CallCompleted,
    CallFailed,
    Failed,
    Progressed,
)
from toolbus_common.declared import Server
from toolbus_common.errors import (
    BreakerOpenError,
    OutcomeUnknownError,
    ToolbusError,
    UpstreamDeadError,
    UpstreamTimeoutError,
)
from toolbus_common.exchange import Reply
from toolbus_common.factlane import FactWriter
from toolbus_common.metrics import UPSTREAM_CALLS, UPSTREAM_SECONDS
from toolbus_common.trace import trace_id
from toolbus_executor import wire
from toolbus_executor.breaker import Breaker, State
from toolbus_executor.bulkhead import Bulkhead
from toolbus_executor.upstream import OnProgress, Upstream

log = logging.getLogger(__name__)

MOST_PROGRESS = 64  # frames of one call still to be sent
SCOPE = "default"  # facts about servers concern no customer


class Runner:
    """Calls of one server: bulkhead, breaker, deadline, outcome."""

    def __init__(self, name: str, declared: Server, facts: FactWriter) -> None:
        self.name = name
        self.breaker = Breaker()
        self.bulkhead = Bulkhead(name, declared.concurrency)
        self.upstream: Upstream | None = None
        self.why_not = "not connected yet"
        self.last_failure = ""
        self._timeout = declared.timeout
        self._facts = facts
        self._ok = UPSTREAM_CALLS.labels(name, "ok")
        self._tool_error = UPSTREAM_CALLS.labels(name, "tool_error")
        self._seconds = UPSTREAM_SECONDS.labels(name)

    async def run(self, call: CallAdmitted, reply: Reply) -> None:
        """Handle one admitted call."""
        began = perf_counter()
        try:
            raw = await self._attempt(call, reply)
            body, is_error = wire.tool_result(raw, call.era)
        except ToolbusError as error:
            await self._fail(call, reply, error, began)
            return
        except asyncio.CancelledError:
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
        took = perf_counter() - began
        self._seconds.observe(took)
        (self._tool_error if is_error else self._ok).inc()
        self._facts.say(
            CallCompleted(
                id=f"{call.call_id}.completed",
                at=time(),
                scope=call.scope,
                call_id=call.call_id,
                parent_id=call.parent_id,
                trace_id=trace_id(call.traceparent),
                key=call.key,
                server=call.server,
                tool=call.tool,
                charge=call.charge,
                reserved=call.reserved,
                latency_us=int(took * 1e6),
                is_error=is_error,
                result_bytes=len(body),
            )
        )
        await reply.send(Answered(body))

    async def _attempt(self, call: CallAdmitted, reply: Reply) -> bytes:
        """Wait for a turn and ask the server."""
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
            return await self._ask(self._admit(), call, seconds, self._progress(call, reply))
        finally:
            self.bulkhead.leave()

    async def _ask(
        self, upstream: Upstream, call: CallAdmitted, seconds: float, on_progress: OnProgress | None
    ) -> bytes:
        """Ask the server; an error it answers with is a success of the transport."""
        try:
            raw = await upstream.call(call, seconds, on_progress)
        except TimeoutError as error:
            self._count_failure()
            raise UpstreamTimeoutError(
                f"{self.name} did not answer within {seconds:.3g} s; the call may have happened."
            ) from error
        except UpstreamDeadError:
            self._count_failure()
            raise
        except ToolbusError:
            self._count_success()
            raise
        except BaseException:  # says nothing of the server: a probe must not be lost with it
            self.breaker.abandoned(monotonic())
            raise
        self._count_success()
        return raw

    def _too_late(self) -> UpstreamTimeoutError:
        return UpstreamTimeoutError(
            f"{self.name} was too busy to be asked before the call's deadline.", sent=False
        )

    def _admit(self) -> Upstream:
        if self.upstream is None:
            raise UpstreamDeadError(f"{self.name} cannot be called now: {self.why_not}", sent=False)
        if not self.breaker.admits(monotonic()):
            wait = max(0.0, self.breaker.retry_at - monotonic())
            raise BreakerOpenError(
                f"{self.name} failed repeatedly ({self.last_failure}); "
                f"it is tried again in {wait:.1f} s.",
                sent=False,
                server=self.name,
                retry_after=round(wait, 1),
            )
        return self.upstream

    def _progress(self, call: CallAdmitted, reply: Reply) -> OnProgress | None:
        if not call.progress:
            return None
        tasks: set[asyncio.Task[None]] = set()

        def tell(body: bytes) -> None:
            if len(tasks) >= MOST_PROGRESS:
                return  # newer ones will say more
            task = asyncio.ensure_future(reply.send(Progressed(body)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        return tell

    def _count_failure(self) -> None:
        if self.breaker.failed(monotonic()):
            log.warning("breaker.opened", extra={"server": self.name})
            self._facts.say(BreakerOpened(**self._fact("opened"), reason=self.last_failure))

    def _count_success(self) -> None:
        if self.breaker.state is State.CLOSED and not self.breaker.failing:
            return
        if self.breaker.succeeded():
            log.info("breaker.closed", extra={"server": self.name})
            self._facts.say(BreakerClosed(**self._fact("closed")))

    def _fact(self, what: str) -> dict[str, Any]:
        at = time()
        return {"id": f"{self.name}.{what}.{at:.6f}", "at": at, "scope": SCOPE, "server": self.name}

    async def _fail(
        self, call: CallAdmitted, reply: Reply, error: ToolbusError, began: float
    ) -> None:
        sent = bool(error.data.pop("sent", True))
        # Below, nobody knows the name an operator gave the server; the caller must be told it.
        reason = error.reason.replace("The upstream", f"The upstream {self.name}", 1)
        error = type(error)(reason, **error.data)
        self.last_failure = error.reason
        UPSTREAM_CALLS.labels(self.name, error.code).inc()
        self._facts.say(
            CallFailed(
                id=f"{call.call_id}.failed",
                at=time(),
                scope=call.scope,
                call_id=call.call_id,
                parent_id=call.parent_id,
                trace_id=trace_id(call.traceparent),
                key=call.key,
                server=call.server,
                tool=call.tool,
                charge=call.charge if sent else 0,
                reserved=call.reserved,
                latency_us=int((perf_counter() - began) * 1e6),
                code=error.code,
                reason=error.reason,
                sent=sent,
            )
        )
        await reply.send(Failed(error))
