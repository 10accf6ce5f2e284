"""The decision about a call: its authorization, the verdict of the rules, and its approval."""

from time import time

from msgspec import Struct

from toolbus_common.contracts import CallRequested, OutcomeClaim
from toolbus_common.errors import RuleDeniedError
from toolbus_common.rules import SILENT, Verdict
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.approvals.elicitation import STATE_PREFIX
from toolbus_policy.approvals.model import RULE, Cause
from toolbus_policy.ledger.admitted_call import Admission


class Decision(Struct, frozen=True):
    """An authorized call: its authorizer, its admission and the verdict of the rules.

    `claim` is set if the call has an idempotency key. It is released unless the call is dispatched.
    """

    authorizer: Authorizer
    admission: Admission
    verdict: Verdict
    claim: OutcomeClaim | None = None


def may_need_approval(decision: Decision, call: CallRequested) -> bool:
    """Return whether approval is needed, or the call contains the state of an approval."""
    needed = decision.admission.cause or decision.verdict.approve_by
    return bool(needed or (call.extra and STATE_PREFIX in call.extra))


def waits_for_approval(admission: Admission) -> bool:
    """Return whether the call can wait for approval: model requests only if a server caused it."""
    return admission.size is None or bool(admission.size.sampled_by)


def evaluate_rules(authorizer: Authorizer, call: CallRequested, admission: Admission) -> Verdict:
    """Return the verdict of the rules. Raises `RuleDeniedError`."""
    if authorizer.rule_evaluator is None:
        return SILENT
    principal, charge = admission.payer.principal, admission.charge
    verdict = authorizer.rule_evaluator.verdict(call, principal, charge, time(), admission.size)
    if verdict.denied_by:
        raise RuleDeniedError(verdict.reason, rule=verdict.denied_by)
    if verdict.approve_by and not waits_for_approval(admission):
        raise RuleDeniedError(
            f"The rule '{verdict.approve_by}' requires approval, and model requests cannot wait "
            "for approval, so the request is denied. Change the request, or ask an operator.",
            rule=verdict.approve_by,
        )
    return verdict


def approval_cause(call: CallRequested, admission: Admission, verdict: Verdict) -> Cause:
    """Return the level or rule that requires approval. A task's call was approved already."""
    if admission.cause or not verdict.approve_by or call.method.startswith("tasks/"):
        return Cause(admission.cause, charge=admission.charge)
    return Cause(f"{RULE}{verdict.approve_by}", verdict.reason, admission.charge)
