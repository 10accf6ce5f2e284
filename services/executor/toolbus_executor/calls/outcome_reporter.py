"""Reporter of calls' outcomes: metrics, events, idempotency store and reply."""

from time import perf_counter

from toolbus_common.calls.event_fields import extended
from toolbus_common.calls.outcome_store import OutcomeStore, ReturnedResult
from toolbus_common.contracts import CallAdmitted, CallError, GuardCheck, OutcomeClaim
from toolbus_common.contracts.events.guards import encoded_checks
from toolbus_common.errors import (
    ModelRefusedError,
    ToolbusError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.observability.call_metrics import call_count
from toolbus_common.observability.metrics import UPSTREAM_CALLS, UPSTREAM_SECONDS
from toolbus_executor.calls.outcome_events import CompletionEvents, failed
from toolbus_executor.mcp_messages.result_mapping import CallOutcome
from toolbus_executor.resilience.failure_log import FailureLog, with_name


class OutcomeReporter:
    """Reporter of the outcomes of one server's calls."""

    def __init__(self, name: str, events: EventPublisher, failures: FailureLog) -> None:
        self.idempotency_store: OutcomeStore | None = None  # for calls with an idempotency key
        self.misfits: dict[str, str] = {}  # validation errors of the arguments of calls in progress
        self.checks: dict[str, tuple[GuardCheck, ...]] = {}  # guard checks of calls in progress
        self._name = name
        self._events = events
        self._failures = failures
        self._completions = CompletionEvents()
        self._ok = call_count(UPSTREAM_CALLS.labels(name, "ok"))
        self._tool_error = call_count(UPSTREAM_CALLS.labels(name, "tool_error"))
        self._seconds = UPSTREAM_SECONDS.labels(name)

    def extended(self, call: CallAdmitted, deadline: float) -> None:
        """Publish the extended deadline of a call, and extend its idempotency claim."""
        self._events.publish(extended(call, deadline))
        if call.claim is not None and self.idempotency_store is not None:
            self.idempotency_store.extend(call, call.claim, deadline)

    def completed(self, call: CallAdmitted, outcome: CallOutcome, took: float) -> None:
        """Count a result, and publish its event."""
        self._seconds.observe(took)
        (self._tool_error if outcome.is_error else self._ok).count += 1
        misfit = self.misfits.pop(call.call_id, "") if self.misfits else ""
        guards = self._guards_of(call) if call.guards else ""
        self._events.publish(self._completions.build(call, outcome, took, misfit, guards))

    async def failed(
        self, call: CallAdmitted, error: ToolbusError, began: float, charge: int | None = None
    ) -> CallError:
        """Record a failure and return the reply. `charge` is passed to `outcome_events.failed`."""
        sent = bool(error.data.pop("sent", True))
        if call.guards:
            charge = error.data.pop("charge", charge)
        # Adapters do not know the configured name of the server; the caller needs it.
        # The upstream's own text stays unchanged.
        if not isinstance(error, UpstreamRefusedError | ModelRefusedError):
            reason = with_name(error.reason, self._name)
            error = type(error)(reason, **error.data)
        if not sent and isinstance(error, UpstreamTimeoutError):
            error.data["retryable"] = True  # not dispatched, so no side effect
        self._failures.note(error)
        UPSTREAM_CALLS.labels(self._name, error.code).inc()
        took, misfit = perf_counter() - began, self.misfits.pop(call.call_id, "")
        guards = self._guards_of(call) if call.guards else ""
        self._events.publish(failed(call, error, took, misfit, guards, sent=sent, charge=charge))
        if call.claim is not None:
            await self.store(call, call.claim, CallError(error), sent=sent)
        return CallError(error)

    def _guards_of(self, call: CallAdmitted) -> str:
        """Return the checks of a call's result as events contain them."""
        return encoded_checks(self.checks.pop(call.call_id, ()))

    async def store(
        self, call: CallAdmitted, claim: OutcomeClaim, reply: ReturnedResult, *, sent: bool = True
    ) -> None:
        """Store the reply for repetitions of the call with the same idempotency key."""
        if self.idempotency_store is not None:
            await self.idempotency_store.end(call, claim, reply, sent=sent)
