"""An approval and its state transitions (no I/O)."""

import secrets
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from toolbus_common.access.principal import Principal
from toolbus_common.contracts import (
    ApprovalEvent,
    ApprovalExpired,
    ApprovalGranted,
    ApprovalRejected,
    ApprovalRequested,
    ApprovalState,
    ApprovalUsed,
    ApprovalWithdrawn,
    CallRequested,
)
from toolbus_common.observability.trace_context import trace_id
from toolbus_common.privacy.content_policy import recorded

RULE = "rule:"  # prefix of a rule's name in a cause, like `key:` for a key
FLOW = "flow"  # the cause if a run combines private and untrusted data
GUARD = "guard:"  # prefix of a guard's name in a cause
MAX_ARGUMENT_BYTES = 64 * 1024  # an approver must be able to see all arguments
MAX_ROUNDS = 32  # `input_required` responses within one approved call


class State(StrEnum):
    """State of an approval."""

    PENDING = "pending"
    GRANTED = "granted"
    REJECTED = "rejected"
    USED = "used"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


_NOTHING: dict[str, Any] = {"arguments": "", "shown": ""}
OPEN = (State.PENDING, State.GRANTED)
_VOID = (State.EXPIRED, State.WITHDRAWN)  # the same call requests a new approval


class Cause(NamedTuple):
    """The level, rule or guard that requires approval, and its reason. Empty if none does.

    `charge` is the price of the call, or the amount to reserve, in micro-dollars. `chain` are the
    calls whose combination requires approval, in their order. `shown` are the arguments as the
    approver may see them; empty if they are shown as they are.
    """

    name: str = ""
    why: str = ""
    charge: int = 0
    chain: tuple[str, ...] = ()
    shown: str = ""


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the bucket `tb_approvals`, under its binding. Times are seconds since the epoch.

    `ends` is when the present state ends. `arguments` are stored only while the approval is open.
    `used_by` is the id of the call that used it. `rounds` are digests of the server's states with
    which this call continued. `chain` and `shown` are those of the cause.
    """

    id: str
    binding: str
    state: State
    key: str
    customer: str
    server: str
    tool: str
    method: str
    cause: str
    call_id: str
    requested_at: float
    ends: float
    user: str = ""
    why: str = ""
    trace_id: str = ""
    arguments: str = ""
    arguments_digest: str = ""
    by: str = ""
    note: str = ""
    used_by: str = ""
    rounds: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()
    shown: str = ""

    def is_current(self, now: float) -> bool:
        """Return whether the state has not ended."""
        return self.state not in _VOID and now < self.ends

    def applies_to(self, state: str, now: float) -> bool:
        """Return whether the approval covers a call with this `requestState` of its server.

        After the approval was used, it covers only continuations of the same call, one for each
        state that the server returned. Any other call needs a new approval.
        """
        if not self.is_current(now) or self.state is not State.USED:
            return self.is_current(now)
        return (
            bool(state)
            and _state_digest(state) not in self.rounds
            and len(self.rounds) < MAX_ROUNDS
        )


def covers(approval: Approval, cause: Cause) -> bool:
    """Return whether the approver was shown every call of the cause's chain."""
    return set(cause.chain) <= set(approval.chain)


def new_approval(
    call: CallRequested, principal: Principal, cause: Cause, binding: str, span: tuple[float, float]
) -> Approval:
    """Return a pending approval for a call. `span` is its start and end in epoch seconds."""
    levels = dict(principal.levels)
    return Approval(
        id=secrets.token_hex(16),
        binding=binding,
        state=State.PENDING,
        key=principal.key,
        user=next((state_of for state_of in levels if state_of.startswith("user:")), ""),
        customer=principal.customer,
        server=call.server,
        tool=call.tool,
        method=call.method,
        cause=cause.name,
        why=cause.why,
        chain=cause.chain,
        shown=cause.shown,
        call_id=call.call_id,
        trace_id=trace_id(call.traceparent),
        requested_at=span[0],
        ends=span[1],
        arguments=call.arguments.decode(),
        arguments_digest=sha256(call.arguments).hexdigest(),
    )


def granted(approval: Approval, by: str, note: str, ends: float) -> Approval:
    """Return the approval as granted: one call may be made until `ends`."""
    return replace(approval, state=State.GRANTED, by=by, note=note, ends=ends)


def rejected(approval: Approval, by: str, note: str, ends: float) -> Approval:
    """Return the approval as rejected: the same call is rejected until `ends`."""
    return replace(approval, state=State.REJECTED, by=by, note=note, ends=ends, **_NOTHING)


def used(approval: Approval, ends: float, call_id: str) -> Approval:
    """Return the approval as used: until `ends`, its call may only answer its server's requests."""
    return replace(approval, state=State.USED, ends=ends, used_by=call_id, rounds=(), **_NOTHING)


def continued(approval: Approval, state: str) -> Approval:
    """Return the approval after its call continued with a state of its server."""
    return replace(approval, rounds=(*approval.rounds, _state_digest(state)))


def expired(approval: Approval) -> Approval:
    """Return the approval as expired."""
    return replace(approval, state=State.EXPIRED, **_NOTHING)


def withdrawn(approval: Approval) -> Approval:
    """Return the approval as withdrawn by the cancellation of its call."""
    return replace(approval, state=State.WITHDRAWN, **_NOTHING)


def state_of(approval: Approval, maximum: int) -> ApprovalState:
    """Return the approval for display, with at most `maximum` characters of the arguments."""
    arguments = approval.shown or approval.arguments
    return ApprovalState(
        id=approval.id,
        state=approval.state.value,
        key=approval.key,
        server=approval.server,
        tool=approval.tool,
        method=approval.method,
        cause=approval.cause,
        requested_at=approval.requested_at,
        ends=approval.ends,
        arguments=arguments[:maximum],
        arguments_digest=approval.arguments_digest,
        cut=len(arguments) > maximum,
        by=approval.by,
        note=approval.note,
        why=approval.why,
        chain=approval.chain,
    )


def rule_input(call: CallRequested, principal: Principal, cause: Cause) -> dict[str, Any]:
    """Return the call's fields that rules can read, for the event of a requested approval."""
    arguments = cause.shown.encode() or call.arguments
    names = principal.level_names
    return {
        "team": names.get("team", ""),
        "user": names.get("user", ""),
        "environment": principal.environment,
        "family": call.family.value,
        "charge": cause.charge,
        "arguments": recorded(arguments, principal.recording(call.server)[0]),
    }


def event_of(
    approval: Approval, at: float, call_id: str = "", read: dict[str, Any] | None = None
) -> ApprovalEvent:
    """Return the event of an approval that just entered its state.

    `read` are the fields that rules could read, for a requested approval.
    """
    kind = _EVENTS[approval.state]
    more: dict[str, Any] = {}
    if approval.state in OPEN:
        more["expires"] = approval.ends
    if kind is ApprovalRequested:
        more |= {"cause": approval.cause, "arguments_digest": approval.arguments_digest}
        more["rule"] = approval.cause.removeprefix(RULE) if approval.cause[:5] == RULE else ""
        more |= read or {}
    return kind(
        id=f"{approval.id}.{approval.state.value}",
        at=at,
        customer=approval.customer,
        call_id=call_id or approval.call_id,
        trace_id=approval.trace_id,
        key=approval.key,
        server=approval.server,
        tool=approval.tool,
        method=approval.method,
        approval=approval.id,
        binding=approval.binding,
        by=approval.by,
        reason=approval.note,
        **more,
    )


def _state_digest(state: str) -> str:
    return sha256(state.encode()).hexdigest()


_EVENTS: dict[State, type[ApprovalEvent]] = {
    State.PENDING: ApprovalRequested,
    State.GRANTED: ApprovalGranted,
    State.REJECTED: ApprovalRejected,
    State.USED: ApprovalUsed,
    State.EXPIRED: ApprovalExpired,
    State.WITHDRAWN: ApprovalWithdrawn,
}
