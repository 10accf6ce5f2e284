"""What a program is told of a call that failed: its code, why, and what its author can do."""

from toolbus_codemode.programs.limits import Cap
from toolbus_codemode.sandbox.program import Failure
from toolbus_common.errors import ToolbusError

ASKS = (
    "This tool asks its caller something, which a program cannot answer. Call it as a tool of its "
    "own, outside of a program."
)
LATER = (
    "This tool answers later, by a task, which a program cannot wait for. Call it as a tool of "
    "its own, outside of a program."
)
# What is to be done about a code, where the sentence itself does not say it to a program.
_DO = {
    "unknown_tool": "It was there when the program began and is no longer offered: list the tools "
    "again with listToolFiles.",
    "budget_exceeded": "Calls that cost something are refused until then: return what there is, "
    "or have the budget raised.",
    "rate_exceeded": "Make fewer calls in one program, or send the rest in a later one.",
    "approval_required": "What this program did before is done: send a program that makes only "
    "this call and what follows it.",
    "upstream_timeout": "It may have happened: check before repeating it.",
    "outcome_unknown": "Check whether it happened before repeating it.",
}


def failure_of(error: ToolbusError, cap: Cap | None = None) -> Failure:
    """The failure of one call. A sentence of ours never holds a secret."""
    if error.code == "run_budget_exceeded" and cap is not None:
        told = (
            f"{error.reason} {cap.by} lets the calls of one program cost ${cap.most:g} together. "
            "Return what there is, and go on in another program if that is wanted."
        )
        return Failure(error.code, told)
    todo = _DO.get(error.code, "")
    return Failure(error.code, f"{error.reason} {todo}" if todo else error.reason)
