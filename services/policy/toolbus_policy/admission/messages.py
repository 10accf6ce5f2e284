"""Build the messages and events of admission: intent, admitted call, denial, failed dispatch."""

from hashlib import sha256
from time import time

from toolbus_common.calls.event_fields import call_fields
from toolbus_common.contracts import (
    CallAdmitted,
    CallAllowed,
    CallDenied,
    CallFailed,
    CallRequested,
)
from toolbus_common.contracts.base import trusted
from toolbus_common.contracts.calls import NOTHING
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.contracts.events.guards import GuardCheck, encoded_checks
from toolbus_common.errors import ToolbusError
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.observability.trace_context import trace_id
from toolbus_common.plugins.subjects import is_plugin
from toolbus_common.privacy.content_policy import recorded
from toolbus_policy.admission.caller_identity import caller_identity_of
from toolbus_policy.admission.decision import Decision
from toolbus_policy.flow.follower import denied_record
from toolbus_policy.guards.call_inspector import run_of
from toolbus_policy.ledger.admitted_call import Admission, Payer

_allowed, _admitted = trusted(CallAllowed), trusted(CallAdmitted)


def build_admitted(
    decision: Decision, call: CallRequested, flow: str = "", *, reserved: bool
) -> CallAdmitted:
    """Return the call as executor receives it. `flow` is the sealed start of a followed program."""
    admission, payer = decision.admission, decision.admission.payer
    admitted = _admitted(
        call_id=call.call_id,
        reply_to=call.reply_to,
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
        claim=decision.claim,
        result_content=admission.result_content,
        user=payer.user,
        identity=caller_identity_of(decision.authorizer.snapshot, call, payer),
        principal_id=payer.id_for(call.key_digest),
        session=call.session,
        checked=None if admission.strict else decision.verdict.reads,
        cache=admission.terms.cache if admission.terms is not None else "",
        arguments=call.arguments,
    )
    guards = admission.guards
    if guards is not None:
        names, has_placeholders = guards.later, guards.has_placeholders
        if (
            call.session and call.capabilities != NOTHING
        ):  # the client answers requests outside of calls, too
            others = (each for each in guards.checking if not is_plugin(each))
            names, has_placeholders = tuple(dict.fromkeys((*names, *others))), True
        run = run_of(call, payer) if has_placeholders else ""
        admitted = admitted.model_copy(update={"guards": names, "run": run})
    if call.server != BUILT_IN:
        return admitted
    caller = {"key_digest": call.key_digest, "restriction": call.restriction, "terms": call.terms}
    return admitted.model_copy(update={**caller, "flow": flow})


def build_intent(
    decision: Decision, call: CallRequested, approval: str, *, reserved: bool
) -> CallAllowed:
    """Return the event that must be stored before the call is dispatched."""
    authorizer, admission, verdict = decision.authorizer, decision.admission, decision.verdict
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
        policy_version=authorizer.version,
        approval=approval,
        definition_digest=admission.definition,
        aliases=admission.terms.aliases if admission.terms is not None else (),
        actors=authorizer.snapshot.actors(payer.key, call.key_digest),
        suggested_by=call.suggested_by,
        guards=encoded_checks(decision.checks) if decision.checks else "",
        flow=decision.flow.record if decision.flow is not None else "",
    )


def build_denied(
    call: CallRequested,
    error: ToolbusError,
    admission: Admission | None,
    payer: Payer | None,
    actors: tuple[str, ...] = (),
    checks: tuple[GuardCheck, ...] = (),
    *,
    content: bool = True,
) -> CallDenied:
    """Return the event of a denied call; it names the caller if the key is known.

    Without `content`, the arguments are not recorded: guards have not redacted them.
    """
    event = CallDenied(
        id=f"{call.call_id}.denied",
        **call_fields(
            call, payer.customer if payer else DEFAULT_CUSTOMER, payer.key if payer else ""
        ),
        family=call.family,
        charge=admission.charge if admission else 0,
        code=error.code,
        reason=error.reason,
        rule=error.data.get("rule", ""),
        suggested_by=call.suggested_by,
        guards=encoded_checks(checks),
        flow=denied_record(error),
    )
    if payer is None:
        return event
    levels = {name: getattr(payer, name) for name in ("team", "user", "environment")}
    form = payer.principal.recording(call.server)[0]
    arguments = recorded(call.arguments, form) if content else ""
    return event.model_copy(update={**levels, "arguments": arguments, "actors": actors})


def build_not_dispatched(
    call: CallRequested, admission: Admission, error: ToolbusError, *, reserved: bool
) -> CallFailed:
    """Return the outcome of a call that was not dispatched; settlement refunds it."""
    return CallFailed(
        id=f"{call.call_id}.failed",
        **call_fields(call, admission.payer.customer, admission.payer.key),
        reserved=reserved,
        code=error.code,
        reason=error.reason,
        sent=False,
    )
