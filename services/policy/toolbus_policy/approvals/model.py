"""One approval, from the asking to its end: what it is, and what it can become. Pure."""

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

RULE = "rule:"  # what the name of a rule is told with, as levels are with theirs
LARGEST_ARGUMENTS = 64 * 1024  # bytes; an approver must be able to see all of them
MOST_ROUNDS = 32  # of answers to what a server asks within one approved call


class State(StrEnum):
    """Where an approval stands."""

    PENDING = "pending"
    GRANTED = "granted"
    REJECTED = "rejected"
    USED = "used"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


OPEN = (State.PENDING, State.GRANTED)
_OVER = (State.EXPIRED, State.WITHDRAWN)  # of these nothing is told to the same call made again


class Cause(NamedTuple):
    """The level or rule that wants a person asked (empty when none does), and its sentence.

    `charge` is what the call costs or holds, in micro-dollars.
    """

    name: str = ""
    why: str = ""
    charge: int = 0


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the bucket `tb_approvals`, under its binding. Times are seconds since the epoch.

    `ends` is when its present state ends. `arguments` are kept only while it is open. `used_by`
    is the id of the call that was made with it, and `rounds` are digests of the states with which
    that call has gone on since.
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

    def stands(self, now: float) -> bool:
        """Whether its state still counts."""
        return self.state not in _OVER and now < self.ends

    def lets_on(self, state: str, now: float) -> bool:
        """Whether it still says something about a call that brings this state of its server's.

        A call that has used its approval may answer what its server asks, once for each state the
        server gave it. Anything else is another call, and asks again.
        """
        if not self.stands(now) or self.state is not State.USED:
            return self.stands(now)
        return bool(state) and _mark(state) not in self.rounds and len(self.rounds) < MOST_ROUNDS


def asked(
    call: CallRequested, principal: Principal, cause: Cause, binding: str, span: tuple[float, float]
) -> Approval:
    """A new approval for a call; `span` is when it is asked for, and until when."""
    levels = dict(principal.levels)
    return Approval(
        id=secrets.token_hex(16),
        binding=binding,
        state=State.PENDING,
        key=principal.key,
        user=next((told for told in levels if told.startswith("user:")), ""),
        customer=principal.customer,
        server=call.server,
        tool=call.tool,
        method=call.method,
        cause=cause.name,
        why=cause.why,
        call_id=call.call_id,
        trace_id=trace_id(call.traceparent),
        requested_at=span[0],
        ends=span[1],
        arguments=call.arguments.decode(),
        arguments_digest=sha256(call.arguments).hexdigest(),
    )


def granted(approval: Approval, by: str, note: str, ends: float) -> Approval:
    """Once approved: one call may be made until `ends`."""
    return replace(approval, state=State.GRANTED, by=by, note=note, ends=ends)


def rejected(approval: Approval, by: str, note: str, ends: float) -> Approval:
    """Once rejected: the same call is told so until `ends`."""
    return replace(approval, state=State.REJECTED, by=by, note=note, ends=ends, arguments="")


def used(approval: Approval, ends: float, call_id: str) -> Approval:
    """Once used: the call may answer what its server asks until `ends`, and nothing else."""
    return replace(approval, state=State.USED, ends=ends, arguments="", used_by=call_id, rounds=())


def gone_on(approval: Approval, state: str) -> Approval:
    """The approved call goes on with a state of its server's."""
    return replace(approval, rounds=(*approval.rounds, _mark(state)))


def expired(approval: Approval) -> Approval:
    """Once its time is over."""
    return replace(approval, state=State.EXPIRED, arguments="")


def withdrawn(approval: Approval) -> Approval:
    """Once its caller took the call back."""
    return replace(approval, state=State.WITHDRAWN, arguments="")


def told(approval: Approval, most: int) -> ApprovalState:
    """The approval as people see it, with that many characters of the arguments."""
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
        arguments=approval.arguments[:most],
        arguments_digest=approval.arguments_digest,
        cut=len(approval.arguments) > most,
        by=approval.by,
        note=approval.note,
    )


def read_by_rules(call: CallRequested, principal: Principal, charge: int) -> dict[str, Any]:
    """What rules can read of a call, as the event has it that a person is asked about it."""
    names = {kind: name for kind, _, name in (told.partition(":") for told, _ in principal.levels)}
    return {
        "team": names.get("team", ""),
        "user": names.get("user", ""),
        "environment": principal.environment,
        "family": call.family.value,
        "charge": charge,
        "arguments": recorded(call.arguments, principal.recording(call.server)[0]),
    }


def event_of(
    approval: Approval, at: float, call_id: str = "", read: dict[str, Any] | None = None
) -> ApprovalEvent:
    """What is recorded of an approval that has just become what it is.

    `read` is what rules could read of the call, of an approval that is asked for.
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


def _mark(state: str) -> str:
    return sha256(state.encode()).hexdigest()


_EVENTS: dict[State, type[ApprovalEvent]] = {
    State.PENDING: ApprovalRequested,
    State.GRANTED: ApprovalGranted,
    State.REJECTED: ApprovalRejected,
    State.USED: ApprovalUsed,
    State.EXPIRED: ApprovalExpired,
    State.WITHDRAWN: ApprovalWithdrawn,
}
