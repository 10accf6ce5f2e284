"""Explain how a call would be decided: the decision of admission on a call that is never made."""

from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import Any

from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_names import Names
from toolbus_common.contracts import CallRequested, ServersQuery, ServersReply
from toolbus_common.contracts.queries.administration import (
    ExplainedStep,
    ExplainQuery,
    Explanation,
    OwnExplainQuery,
    StepResult,
)
from toolbus_common.errors import (
    BreakerOpenError,
    ServerDrainedError,
    ToolbusError,
    UnauthorizedError,
    UnknownEntryError,
)
from toolbus_common.guards.inspector import Inspector
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_policy.admission.authorizer import AuthorizationCache, Authorizer
from toolbus_policy.admission.decision import (
    Decision,
    approval_cause,
    judge_and_decide,
    may_need_approval,
)
from toolbus_policy.admission.intent import reservation_request
from toolbus_policy.approvals.model import RULE
from toolbus_policy.explanation.grants import key_steps, model_steps, tool_steps
from toolbus_policy.explanation.limits import limit_state, limit_steps
from toolbus_policy.explanation.target import Target, names_of, target_of
from toolbus_policy.explanation.views import own_view
from toolbus_policy.flow.follower import FlowFollower
from toolbus_policy.guards.call_inspector import InspectedCall, inspect_call
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.ledger.ledger import Ledger
from toolbus_policy.models.requests import sized

SERVER_SECONDS = 3.0


class ExplanationDraft:
    """The steps of an explanation, and the first error of a step that decides."""

    def __init__(self) -> None:
        self.steps: list[ExplainedStep] = []
        self.error: ToolbusError | None = None
        self.approval = ""

    def add(self, step: str, result: StepResult, text: str, level: str = "", **more: Any) -> None:
        """Add one step; the first denial or request of approval decides."""
        decides = result in ("denied", "asks") and not self.is_decided
        self.steps.append(
            ExplainedStep(
                step=step, result=result, text=text, level=level, decides=decides, details=more
            )
        )

    @property
    def is_decided(self) -> bool:
        """Whether a step has decided: what follows does not change the result."""
        return self.error is not None or bool(self.approval)

    def deny(self, error: ToolbusError, step: str) -> None:
        """Set the error of the call, unless an earlier step has decided.

        If a step is marked as denied already, the first such step decides. Otherwise, the error is
        added as the step `step`.
        """
        if self.is_decided:
            return
        denied = [at for at, each in enumerate(self.steps) if each.result == "denied"]
        if denied and step in ("key", "name"):
            at = denied[0]
            self.steps[at] = self.steps[at].model_copy(update={"decides": True})
        elif not any(each.decides for each in self.steps):
            self.add(step, "denied", error.reason)
        self.error = error


@dataclass(slots=True)
class Explainer:
    """Handler of the queries for explanations. It only reads.

    `authorizer` and `inspector` return the current objects; the inspector stores and reports
    nothing.
    """

    authorizer: Callable[[], Authorizer]
    inspector: Callable[[], Inspector]
    ledger: Ledger
    flow: FlowFollower
    requests: RequestReply
    outcome_grace: float
    _names: tuple[AuthorizationCache, Names] | None = None

    async def explain(self, query: ExplainQuery) -> Explanation:
        """Explain a call of any key. Raises `UnknownEntryError` or `InvalidError`."""
        snapshot = self.authorizer().snapshot
        try:
            principal = snapshot.principal(query.key)
        except KeyError as error:
            raise UnknownEntryError(
                f"'{query.key}' does not exist in keys; list keys to see the names."
            ) from error
        return await self._explained(principal, query.name, query.arguments)

    async def explain_own(self, query: OwnExplainQuery) -> Explanation:
        """Explain a call of the caller. Raises `UnauthorizedError` or `InvalidError`."""
        principal = await self.authorizer().snapshot.caller(query.key_digest)
        return own_view(await self._explained(principal, query.name, query.arguments))

    async def _explained(self, principal: Principal, name: str, arguments: str) -> Explanation:
        authorizer, draft, now = self.authorizer(), ExplanationDraft(), time()
        target = target_of(
            name, arguments, principal, authorizer.snapshot, self._names_of(authorizer)
        )
        call = target.call
        draft.steps += key_steps(principal, now)
        if principal.own.revoked or now >= principal.ends:
            draft.deny(UnauthorizedError("Invalid, revoked or expired API key."), "key")
        admission = self._authorized(authorizer, principal, target, draft)
        if admission is not None:
            await self._decided(authorizer, call, admission, draft)
            await self._health(call, target, draft)
        error = draft.error
        reason = error.reason if error is not None else draft.approval
        return Explanation(
            key=principal.key,
            name=name,
            server=call.server,
            target=call.tool,
            result="denied" if error is not None else "approval" if draft.approval else "allowed",
            code=error.code if error is not None else "approval_required" if reason else "",
            reason=reason,
            steps=tuple(draft.steps),
        )

    def _names_of(self, authorizer: Authorizer) -> Names:
        """Return the names that clients know; computed once for each configuration."""
        cache = authorizer.cache
        if self._names is None or self._names[0] is not cache:
            self._names = (cache, names_of(authorizer.snapshot, cache.catalogue))
        return self._names[1]

    def _authorized(
        self, authorizer: Authorizer, principal: Principal, target: Target, draft: ExplanationDraft
    ) -> Admission | None:
        """Add the steps of the grants; return the admission, or None if the call is denied."""
        call, declared = target.call, authorizer.snapshot.configuration
        listing = authorizer.cache.catalogue.get(call.server)
        if target.is_model:
            draft.steps += model_steps(principal, call, declared)
        else:
            draft.steps += tool_steps(principal, call, listing, declared)
        try:
            if target.error is not None:
                raise target.error
            admission = authorizer.authorize_principal(
                principal, call.server, call.method, call.tool
            )
            if admission.terms is not None:
                admission = sized(admission, admission.terms, call)
        except ToolbusError as error:
            draft.deny(error, "name")
            return None
        cost = f"${admission.charge / 1_000_000:g}"
        bound = "at most " if admission.cost.parts else ""
        draft.add("price", "passed", f"The call costs {bound}{cost}.", usd=admission.charge / 1e6)
        return admission

    async def _decided(
        self,
        authorizer: Authorizer,
        call: CallRequested,
        admission: Admission,
        draft: ExplanationDraft,
    ) -> None:
        """Add the steps of guards, information flow, rules, approval and limits."""
        inspected = InspectedCall(call)
        if admission.guards is not None:
            inspected = await inspect_call(self.inspector(), call, admission, admission.guards)
            _add_guards(inspected, admission, draft)
        try:
            decision = await judge_and_decide(self.flow, authorizer, admission, inspected)
        except ToolbusError as error:
            step = {"rule_denied": "rule", "flow_refused": "flow"}.get(error.code, "guard")
            draft.deny(error, step)
        else:
            _add_rules(authorizer, decision, draft)
            _add_approval(decision, inspected.call, draft)
            admission, call = decision.admission, inspected.call
        if not admission.limited:
            draft.add("budget", "passed", "No budget, rate or loop limit counts this call.")
            return
        request = reservation_request(call, admission, self.ledger.newest, self.outcome_grace)
        try:
            state = limit_state(await self.ledger.preview(request), admission)
        except ToolbusError as error:
            draft.deny(error, "budget")
            return
        steps, denial = limit_steps(admission, state)
        if draft.is_decided:
            steps = [each.model_copy(update={"decides": False}) for each in steps]
        draft.steps += steps
        if denial is not None:
            draft.deny(denial, "budget")

    async def _health(self, call: CallRequested, target: Target, draft: ExplanationDraft) -> None:
        """Add what executor reports about the server: drained, or failed repeatedly."""
        try:
            reply = await self.requests.request(ServersQuery(), ServersReply, SERVER_SECONDS)
        except ToolbusError as error:
            draft.add("server", "warning", f"The state of the server is not known: {error.reason}")
            return
        rows = [each for each in reply.servers if each.get("name") == call.server]
        row = next((each for each in rows if ("owner" not in each) == target.is_model), None)
        if row is None:
            return
        if row.get("drained"):
            reason = f"An operator drained the server {call.server!r}; retry later."
            draft.add("server", "denied", reason)
            draft.deny(ServerDrainedError(reason), "server")
        elif row.get("breaker") == "open":
            reason = f"The circuit breaker is open: {row.get('last_failure') or 'calls failed'}"
            draft.add("server", "denied", reason)
            draft.deny(BreakerOpenError(reason), "server")
        elif row.get("state") not in (None, "ready"):
            text = f"The server is {row['state']}: {row.get('last_failure') or 'not reached'}"
            draft.add("server", "warning", text)
        else:
            draft.add("server", "passed", "The server is reachable.")


def _add_guards(inspected: InspectedCall, admission: Admission, draft: ExplanationDraft) -> None:
    results: dict[str, StepResult] = {
        "blocked": "denied", "asked": "asks", "redacted": "warning", "failed": "warning",
    }  # fmt: skip
    for check in inspected.checks:
        found = f" It found {', '.join(check.findings)}." if check.findings else ""
        result = results.get(check.verdict, "passed")
        if check.verdict == "failed" and inspected.error is not None:
            result = "denied"
        text = f"The guard '{check.guard}' has the verdict '{check.verdict}'.{found}"
        step = ExplainedStep(
            step="guard",
            result=result,
            text=text,
            decides=result == "denied" and not draft.is_decided,
            details={"guard": check.guard, "verdict": check.verdict},
        )
        draft.steps.append(step)
    later = admission.guards.later if admission.guards is not None else ()
    if later:
        draft.add("guard", "skipped", f"The result will be checked by {', '.join(later)}.")


def _add_rules(authorizer: Authorizer, decision: Decision, draft: ExplanationDraft) -> None:
    rules, verdict = authorizer.snapshot.configuration.rules, decision.verdict
    for name in verdict.shadow:
        text = f"The shadow rule '{name}' would change the decision; it is only recorded."
        draft.add("rule", "warning", text, rule=name)
    if rules and not verdict.approve_by:
        draft.add("rule", "passed", f"No rule of {len(rules)} denies the call.")


def _add_approval(decision: Decision, call: CallRequested, draft: ExplanationDraft) -> None:
    if not may_need_approval(decision, call):
        return
    cause = approval_cause(call, decision)
    by = f"the rule '{cause.name.removeprefix(RULE)}'" if RULE in cause.name else f"'{cause.name}'"
    reason = f"The call waits for approval, which {by} requires. {cause.why}".strip()
    draft.add("approval", "asks", reason, level=cause.name)
    if draft.error is None:
        draft.approval = reason
