"""How one server's calls ended: counted, recorded, kept where they have a key, and answered."""

from time import perf_counter

from toolbus_common.calls.event_fields import extended
from toolbus_common.calls.outcome_store import OutcomeStore, ReturnedResult
from toolbus_common.contracts import CallAdmitted, CallError, OutcomeClaim
from toolbus_common.contracts.replies import ReplyChannel
from toolbus_common.errors import ToolbusError, UpstreamRefusedError, UpstreamTimeoutError
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.observability.metrics import UPSTREAM_CALLS, UPSTREAM_SECONDS
from toolbus_executor.calls.outcome_events import completed, failed
from toolbus_executor.mcp_messages.result_mapping import Ended
from toolbus_executor.resilience.failure_log import Failures, with_name


class Reports:
    """Tells it to everybody whom it concerns."""

    def __init__(self, name: str, events: EventPublisher, failures: Failures) -> None:
        self.outcomes: OutcomeStore | None = None  # of calls with an idempotency key
        self.misfits: dict[str, str] = {}  # of calls under way whose arguments do not fit
        self._name = name
        self._events = events
        self._failures = failures
        self._ok = UPSTREAM_CALLS.labels(name, "ok")
        self._tool_error = UPSTREAM_CALLS.labels(name, "tool_error")
        self._seconds = UPSTREAM_SECONDS.labels(name)

    def extended(self, call: CallAdmitted, deadline: float) -> None:
        """Publish a call's later deadline, and postpone its idempotency claim."""
        self._events.publish(extended(call, deadline))
        if call.claim is not None and self.outcomes is not None:
            self.outcomes.extend(call, call.claim, deadline)

    def completed(self, call: CallAdmitted, ended: Ended, took: float) -> None:
        """Count and record an answer."""
        self._seconds.observe(took)
        (self._tool_error if ended.is_error else self._ok).inc()
        self._events.publish(completed(call, ended, took, self._misfit(call)))

    async def failed(
        self, call: CallAdmitted, reply: ReplyChannel, error: ToolbusError, began: float
    ) -> None:
        """Tell that no answer came of it."""
        sent = bool(error.data.pop("sent", True))
        # Below, nobody knows the name an operator gave the server; the caller must be told it.
        if not isinstance(error, UpstreamRefusedError):  # that one speaks for itself
            reason = with_name(error.reason, self._name)
            error = type(error)(reason, **error.data)
        if not sent and isinstance(error, UpstreamTimeoutError):
            error.data["retryable"] = True  # unlike one that may have happened
        self._failures.note(error)
        UPSTREAM_CALLS.labels(self._name, error.code).inc()
        took, misfit = perf_counter() - began, self._misfit(call)
        self._events.publish(failed(call, error, took, misfit, sent=sent))
        if call.claim is not None:
            await self.keep(call, call.claim, CallError(error), sent=sent)
        await reply.send(CallError(error))

    def _misfit(self, call: CallAdmitted) -> str:
        return self.misfits.pop(call.call_id, "") if self.misfits else ""

    async def keep(
        self, call: CallAdmitted, claim: OutcomeClaim, told: ReturnedResult, *, sent: bool = True
    ) -> None:
        """Keep what its caller is told for whoever repeats it with its key."""
        if self.outcomes is not None:
            await self.outcomes.end(call, claim, told, sent=sent)
