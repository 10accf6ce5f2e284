"""The check of a stored outcome before it is replayed, with the guards that apply now."""

from collections.abc import Awaitable, Callable

import msgspec

from toolbus_common.config.guards.guard import Phase
from toolbus_common.contracts import CallError, CallRequested, CallResult, TaskCreated
from toolbus_common.contracts.events.guards import GuardCheck
from toolbus_common.errors import ToolbusError, UpstreamError
from toolbus_common.guards.content import Content
from toolbus_common.guards.inspector import Inspection, Inspector
from toolbus_common.guards.result_members import joined, parted
from toolbus_common.guards.texts.scan_threads import scanned
from toolbus_policy.guards.call_inspector import checked_call
from toolbus_policy.ledger.admitted_call import Admission

Outcome = CallResult | TaskCreated | CallError
_Check = Callable[[Content], Awaitable[Inspection]]


async def checked_outcome(
    inspector: Inspector, call: CallRequested, admission: Admission, outcome: Outcome
) -> tuple[Outcome, tuple[GuardCheck, ...]]:
    """Return a stored outcome as its caller may receive it now, and the checks.

    The outcome was checked when it was stored, but guards may have been declared since then, or
    others apply to this caller.
    """
    guards = admission.guards
    if guards is None or not guards.later:
        return outcome, ()
    checked = checked_call(call, admission.payer)
    phase: Phase = "completions" if guards.phase == "prompts" else "results"

    async def check(content: Content) -> Inspection:
        return await inspector.inspect_content(guards.later, phase, checked, content)

    if not inspector.applicable(guards.later, phase):
        return outcome, ()
    if isinstance(outcome, CallError):
        return await _checked_error(outcome, check)
    whole = Content(outcome.body)
    members, opaque = await scanned(whole.size, checked, lambda: parted(whole))
    rest = Content(None, members, whole.size) if opaque else whole
    found = await check(rest)
    if found.error is not None:
        return _withheld(found.error), found.checks
    if not rest.is_changed:
        return outcome, found.checks
    if opaque:
        whole.replace(joined(rest.value, opaque))
    body = await scanned(whole.size, checked, lambda: whole.body)
    return type(outcome)(body), found.checks


async def _checked_error(
    outcome: CallError, check: _Check
) -> tuple[CallError, tuple[GuardCheck, ...]]:
    """Check an error that can contain a text of the server."""
    error = outcome.error
    if not isinstance(error, UpstreamError):
        return outcome, ()
    content = Content(msgspec.json.encode([error.reason, error.data]))
    found = await check(content)
    if found.error is not None:
        return _withheld(found.error), found.checks
    if content.is_changed:
        reason, data = content.value
        outcome = CallError(type(error)(reason, **data))
    return outcome, found.checks


def _withheld(error: ToolbusError) -> CallError:
    """Return the error of a replay that a guard rejects. The call itself was executed."""
    error.data |= {"sent": True, "replayed": True}
    return CallError(error)
