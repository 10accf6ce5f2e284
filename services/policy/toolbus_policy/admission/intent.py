"""Steps of every call: whether calls are accepted, its reservation, and its intent."""

from time import time

from toolbus_common.contracts import CallAllowed, CallRequested
from toolbus_common.errors import (
    BusDownError,
    EventsFullError,
    InvalidError,
    OutcomeUnknownError,
    ToolbusError,
    UnavailableError,
)
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.observability.trace_context import trace_id
from toolbus_common.observability.tracing import current
from toolbus_policy.ledger import reservation
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.ledger.limits import repetition_key
from toolbus_policy.ledger.reserve_args import ReservationRequest


def check_accepting(events: EventPublisher, call: CallRequested, now: float) -> None:
    """Check that the call can still be recorded. Raises `InvalidError` or `BusDownError`."""
    if now > call.deadline:
        raise InvalidError("The call was not dispatched, as its deadline has passed. Retry.")
    if events.full:
        raise BusDownError(
            "Audit outbox full: calls are rejected until the bus is reachable. Retry later."
        )


def reservation_request(
    call: CallRequested, admission: Admission, newest: int, grace: float
) -> ReservationRequest:
    """Return the request to reserve the price in all budgets, and to check all limits."""
    key, repeated = admission.payer.key, ""
    if admission.loops:
        run = call.run or f"key:{key}"
        repeated = repetition_key(run, call.server, call.tool, call.arguments)
    about = reservation.CallContext(
        call.server, call.tool, key, trace_id(call.traceparent), call.parent_id, newest
    )
    return ReservationRequest(
        call.call_id, admission, about.encode(), call.deadline + grace, repeated
    )


async def record_intent(events: EventPublisher, intent: CallAllowed) -> None:
    """Store the intent in the stream before the call's deadline.

    The sweeper relies on this: if an intent is stored after the deadline, the call was not
    executed. Raises `BusDownError` or `UnavailableError`.
    """
    try:
        await events.publish_durable(intent)
    except EventsFullError:
        raise
    except BusDownError as error:
        raise BusDownError(
            "The call could not be recorded, so it was not dispatched. Retry."
        ) from error
    if time() > intent.deadline:
        raise UnavailableError(
            "The call's deadline passed while the call was being recorded; it was not "
            "dispatched. Retry."
        )


def error_in_time(call: CallRequested, error: ToolbusError) -> ToolbusError:
    """Return the error for the caller of a call that was not dispatched.

    It is `error` until the call's deadline. Later, ingress may have replied that the outcome is
    unknown, so the reply and the record state the same.
    """
    if time() <= call.deadline:
        return error
    return OutcomeUnknownError(
        "The call's deadline passed before the call could be recorded; it was not dispatched. Look "
        "up the call id in the audit log before retrying."
    )


def stopped_error(call: CallRequested) -> ToolbusError:
    """Return the error of a call that was not dispatched because the service stops."""
    stopped = UnavailableError("The service stopped before the call was dispatched. Retry.")
    return error_in_time(call, stopped)


def end_decision_span(decision: str) -> None:
    """End the decision's span. If services share a process, spans of the call are its children."""
    span = current()
    if span.recorded:
        span.note("toolbus.decision", decision)
        span.end()
