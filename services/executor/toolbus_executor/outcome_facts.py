"""The facts of how a call ended here."""

from toolbus_common.contracts import Asked, Begun, CallAdmitted, CallCompleted, CallFailed, Ending
from toolbus_common.errors import ToolbusError
from toolbus_common.outcomes import about
from toolbus_executor.charging import charge_of, charge_of_failure
from toolbus_executor.results import Ended


def completed(call: CallAdmitted, ended: Ended, seconds: float) -> CallCompleted:
    """The server answered."""
    ending, is_error, kept, cached = ended
    return CallCompleted(
        id=f"{call.call_id}.completed",
        **about(call),
        ending=_kind(ending),
        charge=charge_of(call, ending, kept),
        latency_us=int(seconds * 1e6),
        is_error=is_error,
        result_bytes=len(ending.body) + kept,
        cached=cached,
    )


def failed(call: CallAdmitted, error: ToolbusError, seconds: float, *, sent: bool) -> CallFailed:
    """No answer came of it; what was not sent costs nothing."""
    return CallFailed(
        id=f"{call.call_id}.failed",
        **about(call),
        charge=charge_of_failure(call, error) if sent else 0,
        latency_us=int(seconds * 1e6),
        code=error.code,
        reason=error.reason,
        sent=sent,
    )


def _kind(ending: Ending) -> str:
    if isinstance(ending, Asked):
        return "input_required"
    return "task" if isinstance(ending, Begun) else "complete"
