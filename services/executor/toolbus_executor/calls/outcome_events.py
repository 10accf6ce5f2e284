"""Events about the outcome of a call."""

from toolbus_common.calls.event_fields import outcome_fields, result_fields
from toolbus_common.contracts import (
    CallAdmitted,
    CallCompleted,
    CallFailed,
    FinalReply,
    InputRequired,
    TaskCreated,
)
from toolbus_common.contracts.base import trusted
from toolbus_common.errors import ToolbusError, UpstreamRefusedError
from toolbus_common.privacy.content_policy import recorded_words
from toolbus_executor.calls.charging import charge_of, charge_of_failure
from toolbus_executor.mcp_messages.result_mapping import CallOutcome

_completed = trusted(CallCompleted)


def completed(
    call: CallAdmitted, outcome: CallOutcome, seconds: float, misfit: str = ""
) -> CallCompleted:
    """Return the event of a call the server answered."""
    reply, is_error, stored, cached, left_out = outcome
    sent = len(reply.body)
    return _completed(
        id=f"{call.call_id}.completed",
        **outcome_fields(call),
        result_type=_kind_of(reply),
        charge=charge_of(call, reply, stored),
        latency_us=int(seconds * 1e6),
        is_error=is_error,
        result_bytes=sent + stored,
        sent_bytes=sent,
        whole_bytes=sent + stored + left_out,
        cached=cached,
        misfit=misfit,
        **result_fields(call, reply.body),
    )


def failed(
    call: CallAdmitted, error: ToolbusError, seconds: float, misfit: str = "", *, sent: bool
) -> CallFailed:
    """Return the event about a call without a result.

    A call that was not dispatched (`sent` is false) costs 0.
    """
    return CallFailed(
        id=f"{call.call_id}.failed",
        **outcome_fields(call),
        charge=charge_of_failure(call, error) if sent else 0,
        latency_us=int(seconds * 1e6),
        code=error.code,
        reason=_recorded_reason(call, error),
        sent=sent,
        misfit=misfit,
    )


def _recorded_reason(call: CallAdmitted, error: ToolbusError) -> str:
    """Return the reason for the event.

    An error text of the upstream is recorded only if the content of results is recorded.
    """
    if not isinstance(error, UpstreamRefusedError):
        return error.reason
    recorded = recorded_words(error.reason, call.result_content)
    number = error.data.get("upstream_code", "none")
    return recorded or f"The server returned JSON-RPC error {number}."


def _kind_of(reply: FinalReply) -> str:
    if isinstance(reply, InputRequired):
        return "input_required"
    return "task" if isinstance(reply, TaskCreated) else "complete"
