"""Failures of nested calls, with code, reason, and a suggestion for the program's author."""

from toolbus_codemode.programs.limits import Cap
from toolbus_codemode.sandbox.program import Failure
from toolbus_common.errors import ToolbusError

NEEDS_INPUT = (
    "This tool requests input from its caller, which a program cannot provide. Call the tool "
    "directly, outside of a program."
)
LATER = (
    "This tool runs as a task, and a program cannot wait for its result. Call the tool directly, "
    "outside of a program."
)
# Suggestions for error codes whose message has no suggestion for programs.
_DO = {
    "unknown_tool": "The tool was listed when the program started and is no longer available: "
    "list the tools again with listToolFiles.",
    "budget_exceeded": "Paid calls are denied until then: return the results so far, or ask an "
    "operator to raise the budget.",
    "rate_exceeded": "Make fewer calls in this program, and the other calls in a later program.",
    "approval_required": "The earlier calls of this program were executed: send a program that "
    "makes only this call and the following ones.",
    "upstream_timeout": "The call may have been executed: check before repeating it.",
    "outcome_unknown": "Check whether the call was executed before repeating it.",
}


def failure_of(error: ToolbusError, cap: Cap | None = None) -> Failure:
    """Return the failure of one call for the program; it contains no secret."""
    if error.code == "run_budget_exceeded" and cap is not None:
        reason = (
            f"{error.reason} {cap.by} limits the calls of one program to ${cap.maximum:g}. "
            "Return the results so far, and continue in another program if needed."
        )
        return Failure(error.code, reason)
    advice = _DO.get(error.code, "")
    return Failure(error.code, f"{error.reason} {advice}" if advice else error.reason)
