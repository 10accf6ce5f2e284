"""The check of what a call sends: its arguments, or its prompt."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from toolbus_common import strict_json
from toolbus_common.contracts import CallRequested
from toolbus_common.contracts.agent_runs import AGENT_RUN
from toolbus_common.contracts.events.guards import GuardCheck
from toolbus_common.contracts.guards import CheckedCall
from toolbus_common.errors import GuardBlockedError, ToolbusError
from toolbus_common.guards.inspector import Inspection, Inspector
from toolbus_common.guards.messages import blocked_reason
from toolbus_common.plugins.documents import document_of
from toolbus_common.plugins.subjects import is_plugin
from toolbus_policy.approvals.model import MAX_ARGUMENT_BYTES
from toolbus_policy.guards.hidden_matches import without_matches
from toolbus_policy.ledger.admitted_call import Admission, CallGuards, Payer

# Not checked: the server's own state, which ingress returns only unchanged.
_STATE = "requestState"
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class InspectedCall(Struct, frozen=True):
    """A call after its guards. `call` has the redacted arguments.

    `error` is set if the call must be denied. `ask` is the guard that requires approval, and
    `shown` are the arguments as an approver may see them. `original` are the arguments before their
    redaction; it is empty without one.
    """

    call: CallRequested
    checks: tuple[GuardCheck, ...] = ()
    error: ToolbusError | None = None
    ask: str = ""
    shown: str = ""
    original: bytes = b""

    @property
    def why(self) -> str:
        """The reason of the approval that the guard requires."""
        found = next((each.findings for each in self.checks if each.guard == self.ask), ())
        return f"The guard '{self.ask}' found {', '.join(found)} in this call." if self.ask else ""


async def inspect_call(
    inspector: Inspector, call: CallRequested, admission: Admission, guards: CallGuards
) -> InspectedCall:
    """Check what a call sends to its server or model: the arguments, the URI, and `extra`.

    `extra` contains responses to requests of the server, and foreign members of `_meta`. The
    `extra` of a model request is not checked: ingress writes it, and no provider receives it.
    """
    if not guards.checking:
        return InspectedCall(call)
    checked = checked_call(call, admission.payer)
    may_ask = call.method != AGENT_RUN and (
        admission.terms is None or bool(admission.size and admission.size.sampled_by)
    )
    rest = {} if admission.terms is not None else _further(call)

    async def inspect(body: bytes) -> Inspection:
        return await inspector.inspect(
            guards.checking, guards.phase, checked, body, may_ask=may_ask
        )

    asks_plugins = admission.terms is None and any(map(is_plugin, guards.checking))
    if not rest and not asks_plugins:
        found = await inspect(call.arguments)
        made = _inspected(call, found, lambda: {"arguments": found.body})
        return await _with_shown(inspector, made) if made.ask else made
    arguments = msgspec.Raw(call.arguments or b"null")
    try:
        strict_json.parse(call.arguments or b"null")  # a part of `body`, so it must be JSON
        body = msgspec.json.encode({"arguments": arguments, **rest})
    except strict_json.StrictJSONError:
        body = call.arguments  # not JSON: every guard fails
    found = await inspect(body)
    made = _inspected(call, found, lambda: _parts(call, body, found.body))
    return await _with_shown(inspector, made) if made.ask else made


async def ask_decided(
    inspector: Inspector, call: CallRequested, admission: Admission
) -> Inspection:
    """Ask the plugins that are asked after the decision about a call."""
    guards = admission.guards
    if guards is None or not guards.decided:
        return Inspection(b"")
    checked = checked_call(call, admission.payer)
    body = call.arguments if admission.terms is not None else document_of(call)
    return await inspector.ask_plugins(guards.decided, "after_decision", checked, body)


async def _with_shown(inspector: Inspector, made: InspectedCall) -> InspectedCall:
    """Add the arguments as an approver sees them: without what the guards found."""
    arguments = made.call.arguments
    if len(arguments) > MAX_ARGUMENT_BYTES:
        return made  # it cannot wait for an approval
    shown = await asyncio.to_thread(
        without_matches, inspector.guards, made.checks, arguments or b"null"
    )
    return msgspec.structs.replace(made, shown=shown if shown != arguments.decode() else "")


def checked_call(call: CallRequested, payer: Payer) -> CheckedCall:
    """Return the call as guards know it."""
    return CheckedCall(
        call_id=call.call_id,
        customer=payer.customer,
        key=payer.key,
        server=call.server,
        tool=call.tool,
        deadline=call.deadline,
        principal_id=payer.id_for(call.key_digest),
        run=run_of(call, payer),
    )


def run_of(call: CallRequested, payer: Payer) -> str:
    """Return the run in which equal values have equal placeholders."""
    return call.run or f"key:{payer.key}"


def _further(call: CallRequested) -> dict[str, Any]:
    """Return what a call sends besides its arguments."""
    found: dict[str, Any] = {}
    if call.extra:
        extra = _members(call.extra)
        extra.pop(_STATE, None)
        if extra:
            found["extra"] = extra
    if call.method.startswith("resources/"):
        found["uri"] = call.tool
    return found


def _inspected(
    call: CallRequested, found: Inspection, parts: Callable[[], dict[str, Any]]
) -> InspectedCall:
    redacted = any(each.verdict == "redacted" for each in found.checks)
    if found.error is not None or not redacted:
        return InspectedCall(call, found.checks, found.error, found.ask)
    try:
        changed = call.model_copy(update=parts())
    except _TargetRedactedError:
        return InspectedCall(call, found.checks, _target_error(found))
    return InspectedCall(changed, found.checks, None, found.ask, original=call.arguments)


def _parts(call: CallRequested, before: bytes, after: bytes) -> dict[str, Any]:
    """Return the changed fields of a call. Raises `_TargetRedactedError`."""
    old, new = _members(before), _members(after)
    if new.keys() != old.keys() or ("uri" in old and bytes(new["uri"]) != bytes(old["uri"])):
        raise _TargetRedactedError
    if bytes(new["arguments"])[:1] != bytes(old["arguments"])[:1]:  # of another JSON type
        raise _TargetRedactedError
    changed: dict[str, Any] = {"arguments": bytes(new["arguments"])}
    if "extra" in new:
        extra = _members(new["extra"])
        if _STATE in (sent := _members(call.extra)):
            extra[_STATE] = sent[_STATE]
        changed["extra"] = msgspec.json.encode(extra).decode()
    return changed


class _TargetRedactedError(Exception):
    """A guard redacted the URI that selects a resource, or a whole part of the call."""


def _target_error(found: Inspection) -> GuardBlockedError:
    check = next(each for each in found.checks if each.verdict == "redacted")
    reason = blocked_reason(check.guard, "redact", "arguments", check.findings)
    return GuardBlockedError(
        reason, guard=check.guard, phase=check.phase, findings=[*check.findings]
    )
