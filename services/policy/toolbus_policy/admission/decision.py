"""The decision about a call: its authorization, the verdict of the rules, and its approval."""

from time import time

from msgspec import Struct
from msgspec.structs import replace

from toolbus_common.config import Configuration
from toolbus_common.contracts import CallRequested, OutcomeClaim
from toolbus_common.contracts.events.guards import GuardCheck
from toolbus_common.errors import RefusedError, RuleDeniedError, ToolbusError
from toolbus_common.guards.inspector import Inspector
from toolbus_common.observability.tracing import Tracer
from toolbus_common.rules import SILENT, Verdict
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.approvals.elicitation import STATE_PREFIX
from toolbus_policy.approvals.model import FLOW, GUARD, RULE, Cause
from toolbus_policy.approvals.service import ApprovalResult, ApprovalService
from toolbus_policy.flow.follower import Caller, FlowFollower, Judgement
from toolbus_policy.guards.call_inspector import InspectedCall, ask_decided
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.models.requests import sized

_tracer = Tracer("policy")


class Decision(Struct, frozen=True):
    """An authorized call: its authorizer, its admission and the verdict of the rules.

    `claim` is set if the call has an idempotency key. It is released unless the call is dispatched.
    `checks` are those of its guards. `flow` is the judgement of the call's information flow, if
    the call has labels that matter.
    `cause` is set if a guard or the flow requires approval. `original` are the arguments before
    their redaction, if they were redacted.
    """

    authorizer: Authorizer
    admission: Admission
    verdict: Verdict
    claim: OutcomeClaim | None = None
    checks: tuple[GuardCheck, ...] = ()
    cause: Cause | None = None
    flow: Judgement | None = None
    original: bytes = b""


def may_need_approval(decision: Decision, call: CallRequested) -> bool:
    """Return whether approval is needed, or the call contains the state of an approval."""
    needed = decision.admission.cause or decision.verdict.approve_by or decision.cause
    return bool(needed or (call.extra and STATE_PREFIX in call.extra))


def waits_for_approval(admission: Admission) -> bool:
    """Return whether the call can wait for approval: model requests only if a server caused it."""
    return admission.size is None or bool(admission.size.sampled_by)


def evaluate_rules(
    authorizer: Authorizer,
    call: CallRequested,
    admission: Admission,
    judged: Judgement | None = None,
) -> Verdict:
    """Return the verdict of the rules. Raises `RuleDeniedError`."""
    rules = authorizer.rule_evaluator
    if rules is None:
        return SILENT
    principal, charge = admission.payer.principal, admission.charge
    run = judged.context if judged is not None else None
    labels = None
    if rules.reads_labels:
        labels = authorizer.labels_of_call(call.server, call.method, call.tool)
    verdict = rules.verdict(call, principal, charge, time(), admission.size, run, labels)
    if verdict.denied_by:
        raise RuleDeniedError(verdict.reason, rule=verdict.denied_by)
    if verdict.approve_by and not waits_for_approval(admission):
        raise RuleDeniedError(
            f"The rule '{verdict.approve_by}' requires approval, and model requests cannot wait "
            "for approval, so the request is denied. Change the request, or ask an operator.",
            rule=verdict.approve_by,
        )
    return verdict


def decide(
    authorizer: Authorizer,
    admission: Admission,
    inspected: InspectedCall,
    claim: OutcomeClaim | None = None,
    judged: Judgement | None = None,
) -> Decision:
    """Return the decision about a call that its guards have checked. Raises `ToolbusError`."""
    if inspected.error is not None:
        raise inspected.error
    if admission.terms is not None:  # a redaction changes the size
        admission = sized(admission, admission.terms, inspected.call)
    verdict = evaluate_rules(authorizer, inspected.call, admission, judged)
    cause = None
    if inspected.ask:
        cause = Cause(f"{GUARD}{inspected.ask}", inspected.why, shown=inspected.shown)
    if judged is not None:
        judged.check(inspected.call)
        if judged.must_be_approved:
            cause = _flow_cause(judged, inspected.call, cause)
    checks, original = inspected.checks, inspected.original
    return Decision(authorizer, admission, verdict, claim, checks, cause, judged, original)


async def judge_and_decide(
    flow: FlowFollower,
    authorizer: Authorizer,
    admission: Admission,
    inspected: InspectedCall,
    claim: OutcomeClaim | None = None,
) -> Decision:
    """Return the decision like `decide`, after the judgement of the call's information flow."""
    judged, call = None, inspected.call
    if admission.flow is not None and inspected.error is None:
        payer = admission.payer
        caller = Caller(payer.principal, payer.id_for(call.key_digest))
        judged = await flow.judge(call, caller, admission.flow, authorizer.labels_of)
    return decide(authorizer, admission, inspected, claim, judged)


async def after_decision(
    inspector: Inspector, decision: Decision, call: CallRequested
) -> tuple[Decision, ToolbusError | None]:
    """Ask plugins about a decision; return it with their checks, and the error of a refusal."""
    with _tracer.below("toolbus.plugins"):
        found = await ask_decided(inspector, call, decision.admission)
    return replace(decision, checks=(*decision.checks, *found.checks)), found.error


def _flow_cause(judged: Judgement, call: CallRequested, cause: Cause | None) -> Cause:
    """Return the cause of an approval that the flow requires, joined with a guard's `cause`."""
    why = judged.why(call)
    if cause is None:
        return Cause(FLOW, why, chain=judged.chain)
    return cause._replace(why=f"{cause.why} {why}", chain=judged.chain)


def approval_cause(call: CallRequested, decision: Decision) -> Cause:
    """Return the level, guard, flow or rule that requires approval.

    Rules do not require a second approval for requests about a task, but guards can: the further
    input of a task was not part of the approved call.
    """
    admission, verdict, cause = decision.admission, decision.verdict, decision.cause
    if cause is not None:
        return cause._replace(name=admission.cause or cause.name, charge=admission.charge)
    if admission.cause or not verdict.approve_by or call.method.startswith("tasks/"):
        return Cause(admission.cause, charge=admission.charge)
    return Cause(f"{RULE}{verdict.approve_by}", verdict.reason, admission.charge)


async def check_approval(
    approvals: ApprovalService, call: CallRequested, decision: Decision
) -> ApprovalResult:
    """Return whether a call needs an approval, and whether it has one.

    If information flow requires the approval, the member `flow` of an error's data explains why.
    """
    principal, judged = decision.admission.payer.principal, decision.flow
    try:
        with _tracer.below("toolbus.approval"):
            return await approvals.check(call, principal, approval_cause(call, decision))
    except RefusedError as error:
        if judged is not None and judged.must_be_approved:
            error.data["flow"] = judged.data(call)
        raise


def may_record(
    declared: Configuration, admission: Admission | None, checks: tuple[GuardCheck, ...]
) -> bool:
    """Return whether the event of a denied call may contain its arguments.

    It may if the call's guards have redacted them, or if no guard checks the call. The guards of a
    call that is not authorized are not known: its arguments are recorded only if no guard is
    configured.
    """
    if admission is None:
        return not declared.guards
    if admission.guards is None or not admission.guards.checking:
        return True
    return bool(checks) and all(
        each.verdict not in ("blocked", "failed", "asked") for each in checks
    )
