"""What the gate says of a call: its intent, its admission, its denial, its failure to be sent."""

from hashlib import sha256
from time import time

from msgspec import Struct

from toolbus_common.calls.event_fields import about_call
from toolbus_common.contracts import (
    CallAdmitted,
    CallAllowed,
    CallDenied,
    CallFailed,
    CallRequested,
    OutcomeClaim,
)
from toolbus_common.contracts.base import trusted
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.errors import ToolbusError
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.observability.trace_context import trace_id
from toolbus_common.privacy.content_policy import recorded
from toolbus_common.rules import Verdict
from toolbus_policy.admission.authorizer import Judge
from toolbus_policy.admission.caller_identity import identified
from toolbus_policy.ledger.admitted_call import Admission, Payer

_allowed, _admitted = trusted(CallAllowed), trusted(CallAdmitted)


class Yes(Struct, frozen=True):
    """What was decided about a call that may go on, and by whom.

    `claim` is there when it has an idempotency key: free again unless the call is handed over.
    """

    judge: Judge
    admission: Admission
    verdict: Verdict
    claim: OutcomeClaim | None = None


def admitted_of(yes: Yes, call: CallRequested, address: str, *, reserved: bool) -> CallAdmitted:
    """The call as executor gets it."""
    admission, payer = yes.admission, yes.admission.payer
    admitted = _admitted(
        call_id=call.call_id,
        reply_to=address,
        server=call.server,
        tool=call.tool,
        customer=payer.customer,
        key=payer.key,
        family=call.family,
        deadline=call.deadline,
        traceparent=call.traceparent,
        tracestate=call.tracestate,
        baggage=call.baggage,
        progress=call.progress,
        parent_id=call.parent_id,
        method=call.method,
        capabilities=call.capabilities,
        log_level=call.log_level,
        default_logs=call.default_logs,
        caller_family=call.caller_family,
        extra=call.extra,
        charge=admission.charge,
        reserved=reserved,
        price=admission.cost.parts,
        claim=yes.claim,
        result_content=admission.result_content,
        user=payer.user,
        identity=identified(yes.judge.snapshot, call, payer),
        principal_id=payer.id_for(call.key_digest),
        session=call.session,
        checked=None if admission.strict else yes.verdict.reads,
        arguments=call.arguments,
    )
    if call.server != BUILT_IN:
        return admitted
    theirs = {"key_digest": call.key_digest, "narrower": call.narrower, "terms": call.terms}
    return admitted.model_copy(update=theirs)


def intent_of(yes: Yes, call: CallRequested, approval: str, *, reserved: bool) -> CallAllowed:
    """The event that must be kept before the call is handed over."""
    judge, admission, verdict = yes.judge, yes.admission, yes.verdict
    payer = admission.payer
    return _allowed(
        id=f"{call.call_id}.allowed",
        at=time(),
        customer=payer.customer,
        call_id=call.call_id,
        parent_id=call.parent_id,
        trace_id=trace_id(call.traceparent),
        key=payer.key,
        team=payer.team,
        user=payer.user,
        environment=payer.environment,
        server=call.server,
        tool=call.tool,
        method=call.method,
        family=call.family,
        charge=admission.charge,
        reserved=reserved,
        shadow=verdict.shadow,
        arguments=recorded(call.arguments, admission.content),
        arguments_digest=sha256(call.arguments).hexdigest(),
        arguments_bytes=len(call.arguments),
        deadline=call.deadline,
        policy_version=judge.version,
        approval=approval,
        definition_digest=admission.definition,
        actors=judge.snapshot.actors(payer.key, call.key_digest),
    )


def denial_of(
    call: CallRequested,
    error: ToolbusError,
    admission: Admission | None,
    who: Payer | None,
    actors: tuple[str, ...] = (),
) -> CallDenied:
    """The event of a call that was refused; who asked is told if that is known."""
    event = CallDenied(
        id=f"{call.call_id}.denied",
        **about_call(call, who.customer if who else DEFAULT_CUSTOMER, who.key if who else ""),
        family=call.family,
        charge=admission.charge if admission else 0,
        code=error.code,
        reason=error.reason,
        rule=error.data.get("rule", ""),
    )
    if who is None:
        return event
    asker = {name: getattr(who, name) for name in ("team", "user", "environment")}
    arguments = recorded(call.arguments, who.principal.recording(call.server)[0])
    return event.model_copy(update={**asker, "arguments": arguments, "actors": actors})


def unsent(
    call: CallRequested, admission: Admission, error: ToolbusError, *, reserved: bool
) -> CallFailed:
    """The outcome of a call that reached nobody; settlement refunds it from this event."""
    return CallFailed(
        id=f"{call.call_id}.failed",
        **about_call(call, admission.payer.customer, admission.payer.key),
        reserved=reserved,
        code=error.code,
        reason=error.reason,
        sent=False,
    )
