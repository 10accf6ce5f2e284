"""The events of how a call ended here."""

from toolbus_common.calls.event_fields import about, told_of_result
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
from toolbus_executor.mcp_messages.result_mapping import Ended

_completed = trusted(CallCompleted)


def completed(call: CallAdmitted, ended: Ended, seconds: float, misfit: str = "") -> CallCompleted:
    """The server answered."""
    ending, is_error, kept, cached, left_out = ended
    sent = len(ending.body)
    return _completed(
        id=f"{call.call_id}.completed",
        **about(call),
        ending=_kind(ending),
        charge=charge_of(call, ending, kept),
        latency_us=int(seconds * 1e6),
        is_error=is_error,
        result_bytes=sent + kept,
        sent_bytes=sent,
        whole_bytes=sent + kept + left_out,
        cached=cached,
        misfit=misfit,
        **told_of_result(call, ending.body),
    )


def failed(
    call: CallAdmitted, error: ToolbusError, seconds: float, misfit: str = "", *, sent: bool
) -> CallFailed:
    """No answer came of it; what was not sent costs nothing."""
    return CallFailed(
        id=f"{call.call_id}.failed",
        **about(call),
        charge=charge_of_failure(call, error) if sent else 0,
        latency_us=int(seconds * 1e6),
        code=error.code,
        reason=_recorded(call, error),
        sent=sent,
        misfit=misfit,
    )


def _recorded(call: CallAdmitted, error: ToolbusError) -> str:
    """Why, as an event keeps it: a server's own words are content, as much as a result is."""
    if not isinstance(error, UpstreamRefusedError):
        return error.reason
    kept = recorded_words(error.reason, call.result_content)
    number = error.data.get("upstream_code", "none")
    return kept or f"The server answered with an error of its own, code {number}."


def _kind(ending: FinalReply) -> str:
    if isinstance(ending, InputRequired):
        return "input_required"
    return "task" if isinstance(ending, TaskCreated) else "complete"
