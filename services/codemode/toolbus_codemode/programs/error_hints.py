"""Failures of nested calls for programs: code, reason, and what the author can do."""

from toolbus_codemode.programs.limits import Cap
from toolbus_codemode.sandbox.program import Failure
from toolbus_common.errors import ToolbusError

NEEDS_INPUT = (
    "This tool asks its caller something, which a program cannot answer. Call it as a tool of its "
    "own, outside of a program."
)
LATER = (
    "This tool answers later, by a task, which a program cannot wait for. Call it as a tool of "
    "its own, outside of a program."
)
# Advice for codes whose message has none for programs.
_DO = {
    "unknown_tool": "It was there when the program began and is no longer offered: list the tools "
    "again with listToolFiles.",
    "budget_exceeded": "Calls that cost something are denied until then: return what there is, "
    "or have the budget raised.",
    "rate_exceeded": "Make fewer calls in one program, or send the rest in a later one.",
    "approval_required": "What this program did before is done: send a program that makes only "
    "this call and what follows it.",
    "upstream_timeout": "It may have happened: check before repeating it.",
    "outcome_unknown": "Check whether it happened before repeating it.",
}


def failure_of(error: ToolbusError, cap: Cap | None = None) -> Failure:
    """Return the failure of one call. Error reasons of Toolbus never contain secrets."""
    if error.code == "run_budget_exceeded" and cap is not None:
        reason = (
            f"{error.reason} {cap.by} limits the calls of one program to ${cap.most:g}. "
            "Return what there is, and continue in another program if needed."
        )
        return Failure(error.code, reason)
    advice = _DO.get(error.code, "")
    return Failure(error.code, f"{error.reason} {advice}" if advice else error.reason)
