"""Admit calls: authorize, evaluate rules, reserve, record the intent, dispatch to executor."""

import logging
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from time import time
from typing import TypeVar

from msgspec.structs import replace

from toolbus_common.access.config_snapshot import hash_of
from toolbus_common.contracts import (
    TOOLS_CALL,
    CallError,
    CallRequested,
    InputRequired,
    OutcomeClaim,
    StoredOutcome,
    TaskCreated,
)
from toolbus_common.contracts.events.guards import GuardCheck
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import BusDownError, ExecutorDownError, ToolbusError, UnauthorizedError
from toolbus_common.guards.inspector import Inspector
from toolbus_common.observability.call_metrics import call_count
from toolbus_common.observability.metrics import DECISIONS
from toolbus_common.observability.tracing import Tracer
from toolbus_common.service.service import Service
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.admission.decision import (
    Decision,
    after_decision,
    check_approval,
    evaluate_rules,
    judge_and_decide,
    may_need_approval,
    may_record,
)
from toolbus_policy.admission.intent import (
    check_accepting,
    end_decision_span,
    error_in_time,
    record_intent,
    reservation_request,
    stopped_error,
)
from toolbus_policy.admission.messages import (
    build_admitted,
    build_denied,
    build_intent,
    build_not_dispatched,
)
from toolbus_policy.approvals.service import ApprovalGrant, ApprovalService
from toolbus_policy.approvals.tasks.model import is_deferred_task_request
from toolbus_policy.flow.follower import FlowFollower
from toolbus_policy.guards.call_inspector import InspectedCall, inspect_call
from toolbus_policy.guards.replayed_outcome import checked_outcome
from toolbus_policy.idempotency.claims import IdempotencyClaims
from toolbus_policy.idempotency.replay import build_replayed, replay_reply
from toolbus_policy.ledger.admitted_call import Admission, Payer
from toolbus_policy.ledger.ledger import Ledger
from toolbus_policy.ledger.reserve_args import run_budget_error
from toolbus_policy.models.requests import sized

log = logging.getLogger(__name__)

ALLOWED = call_count(DECISIONS.labels("allowed"))
R = TypeVar("R", bound=Reply)
_tracer = Tracer("policy")


@dataclass(frozen=True, slots=True)
class AdmissionHandler:
    """Handler of `CallRequested`. `authorizer` and `inspector` return the current objects."""

    service: Service
    authorizer: Callable[[], Authorizer]
    ledger: Ledger
    approvals: ApprovalService
    idempotency: IdempotencyClaims
    outcome_grace: float
    inspector: Callable[[], Inspector]
    flow: FlowFollower

    def handle(self, call: CallRequested, context: CallContext) -> Awaitable[Reply | None]:
        """Admit the call and dispatch it to executor, or return the reason for the denial.

        The reply is None if an executor in another process replies to the caller.
        """
        span = _tracer.span("toolbus.decide", call.traceparent)
        return span.around(self._admit(call, context))

    def _admit(
        self, call: CallRequested, context: CallContext, *, learned: bool = False
    ) -> Awaitable[Reply | None]:
        """Authorize the call, and return an awaitable that does the rest.

        `learned` is true if an unknown access token of the call was looked up.
        """
        authorizer, admission = self.authorizer(), None
        try:
            admission = self._authorize(authorizer, call)
            if admission.is_checked:
                return self._admit_checked(authorizer, admission, call, context)
            verdict = evaluate_rules(authorizer, call, admission)
        except UnauthorizedError as error:
            if learned:
                return self._deny(call, error, None)
            return self._learn_token(call, context, error)
        except ToolbusError as error:
            return self._deny(call, error, admission)
        decision = Decision(authorizer, admission, verdict)
        if call.method == TOOLS_CALL and not call.idempotency_key:
            return self._dispatch_or_ask(decision, call, context)
        return self._admit_decided(decision, call, context)

    async def _admit_checked(
        self,
        authorizer: Authorizer,
        admission: Admission,
        call: CallRequested,
        context: CallContext,
    ) -> Reply | None:
        """Check the content of a call, then admit the call. Nothing uses unchecked content."""
        inspected = await self._inspect(call, admission)
        try:
            decision = await judge_and_decide(self.flow, authorizer, admission, inspected)
        except ToolbusError as error:
            return await self._deny(inspected.call, error, admission, checks=inspected.checks)
        return await self._admit_decided(decision, inspected.call, context)

    async def _inspect(self, call: CallRequested, admission: Admission) -> InspectedCall:
        if admission.guards is None:
            return InspectedCall(call)
        with _tracer.below("toolbus.guards"):
            return await inspect_call(self.inspector(), call, admission, admission.guards)

    def _admit_decided(
        self, decision: Decision, call: CallRequested, context: CallContext
    ) -> Awaitable[Reply | None]:
        if call.method != TOOLS_CALL and is_deferred_task_request(call):
            return self._handle_task_request(decision, call, context)
        if call.idempotency_key:
            return self._admit_once(decision, call, context)
        return self._dispatch_or_ask(decision, call, context)

    async def _learn_token(
        self, call: CallRequested, context: CallContext, error: UnauthorizedError
    ) -> Reply | None:
        """Admit a call whose access token may have been issued moments ago; else deny it."""
        try:
            found = await self.authorizer().snapshot.bearers.learn(hash_of(call.key_digest))
        except ToolbusError as unavailable:
            return await self._deny(call, unavailable, None)
        if found is None:
            return await self._deny(call, error, None)
        return await self._admit(call, context, learned=True)

    async def _admit_once(
        self, decision: Decision, call: CallRequested, context: CallContext
    ) -> Reply | None:
        """Admit a call with an idempotency key; replay the stored outcome if there is one."""
        principal = decision.admission.payer.principal
        try:
            claim = await self.idempotency.claim(call, principal, decision.original)
            if isinstance(claim, StoredOutcome):  # the run reads a replayed result, too
                await self.flow.commit(decision.flow, call)
        except ToolbusError as error:
            return await self._deny(call, error, decision.admission, checks=decision.checks)
        if isinstance(claim, StoredOutcome):
            return await self._replay(claim, call, decision.admission)
        return await self._dispatch_or_ask(replace(decision, claim=claim), call, context)

    def _dispatch_or_ask(
        self, decision: Decision, call: CallRequested, context: CallContext
    ) -> Awaitable[Reply | None]:
        """Dispatch the call, after an approval if it needs one."""
        if may_need_approval(decision, call):
            return self._admit_with_approval(decision, call, context)
        return self._dispatch(decision, call, context)

    async def _replay(self, stored: StoredOutcome, call: CallRequested, given: Admission) -> Reply:
        """Return the outcome of the first call with this idempotency key, checked by the guards."""
        found, principal = replay_reply(stored, call.family), given.payer.principal
        outcome, checks = await checked_outcome(self.inspector(), call, given, found)
        self.service.events.publish(build_replayed(stored, call, principal, outcome, checks))
        DECISIONS.labels("replayed").inc()
        return outcome

    async def _admit_with_approval(
        self, decision: Decision, call: CallRequested, context: CallContext
    ) -> Reply | None:
        """Admit a call that may need approval. After a wait, the call is decided again."""
        claim, admission, checks = decision.claim, decision.admission, decision.checks
        try:
            while (result := await check_approval(self.approvals, call, decision)) is None:
                authorizer = self.authorizer()
                admission = self._authorize(authorizer, call)
                inspected = await self._inspect(call, admission)
                call, checks = inspected.call, inspected.checks
                decision = await judge_and_decide(
                    self.flow, authorizer, admission, inspected, claim
                )
        except ToolbusError as error:
            return await self._deny(call, error, admission, claim, checks=checks)
        except CancelledError:
            self._undo_later(call, claim, None)
            raise
        if isinstance(result, InputRequired | TaskCreated):
            return await self._release(result, call, claim)
        return await self._dispatch(decision, result.call, context, result)

    async def handle_deferred(
        self, call: CallRequested, context: CallContext, key: str, approval: str
    ) -> Reply | None:
        """Admit a call that became a task and whose approval was granted.

        Its idempotency key is claimed here, because a suspended call has no claim.
        """
        with _tracer.span("toolbus.decide", call.traceparent):
            authorizer, payer, admission, claim = self.authorizer(), None, None, None
            checks: tuple[GuardCheck, ...] = ()
            try:
                now = time()
                check_accepting(self.service.events, call, now)
                payer = authorizer.payer_of_key(key, now)
                admission = authorizer.authorize_principal(
                    payer.principal, call.server, call.method, call.tool, call.restriction
                )
                inspected = await self._inspect(call, admission)
                call, checks = inspected.call, inspected.checks
                decision = await judge_and_decide(self.flow, authorizer, admission, inspected)
                if call.idempotency_key:
                    claimed = await self.idempotency.claim(call, payer.principal, decision.original)
                    if isinstance(claimed, StoredOutcome):
                        await self.flow.commit(decision.flow, call)
                        return await self._replay(claimed, call, admission)
                    claim = claimed
                    decision = replace(decision, claim=claim)
                grant = await self.approvals.use_approval(call, payer.principal, approval)
            except ToolbusError as error:
                return await self._deny(call, error, admission, claim, payer, checks)
            return await self._dispatch(decision, call, context, grant)

    async def _handle_task_request(
        self, decision: Decision, call: CallRequested, context: CallContext
    ) -> Reply | None:
        """Answer a request about a task stored here, or dispatch it to the task's server."""
        try:
            await self.flow.commit(decision.flow, call)
            result = await self.approvals.task_service.handle_request(
                call, decision.admission.payer.key
            )
        except ToolbusError as error:
            return CallError(error)
        if isinstance(result, CallRequested):
            return await self._dispatch_or_ask(decision, result, context)
        return result

    async def _dispatch(
        self,
        decision: Decision,
        call: CallRequested,
        context: CallContext,
        grant: ApprovalGrant | None = None,
    ) -> Reply | None:
        """Reserve, record the intent, and hand the call to executor.

        If the intent is not recorded, the approval is restored.
        """
        admission, claim = decision.admission, decision.claim
        try:
            if admission.guards is not None and admission.guards.decided:
                decision, refusal = await after_decision(self.inspector(), decision, call)
                if refusal is not None:
                    raise refusal
            if admission.limited:
                request = reservation_request(
                    call, admission, self.ledger.newest, self.outcome_grace
                )
                await _tracer.below("toolbus.reserve").around(self.ledger.reserve(request))
        except ToolbusError as error:
            denial = await self._deny(call, error, admission, claim, checks=decision.checks)
            await self._restore(grant)
            return denial
        except CancelledError:  # the sweeper ends the reservation
            self._undo_later(call, claim, grant)
            raise
        reserved = bool(admission.budgets)
        intent = build_intent(decision, call, grant.approval if grant else "", reserved=reserved)
        try:
            if decision.flow is not None:
                await self.flow.commit(decision.flow, call)
            with _tracer.below("toolbus.record_intent"):
                await record_intent(self.service.events, intent)
        except ToolbusError as error:
            not_recorded = await self._end_undispatched(decision, call, error, reserved=reserved)
            await self._restore(grant)
            return not_recorded
        except CancelledError:  # the caller's task ends; the intent may be stored nevertheless
            self._publish_not_dispatched(call, admission, stopped_error(call), reserved=reserved)
            self._undo_later(call, claim, grant)
            raise
        if grant is not None:
            self.approvals.record_use(grant)
        ALLOWED.count += 1
        sealed = self.flow.sealed(decision.flow, call) if decision.flow is not None else ""
        admitted = build_admitted(decision, call, sealed, reserved=reserved)
        end_decision_span("allowed")

        async def no_executor() -> None:
            error = ExecutorDownError(f"No executor serves '{call.server}'; retry shortly.")
            reply = await self._end_undispatched(decision, call, error, reserved=reserved)
            await context.send(reply)

        try:
            return await self.service.calls.hand_over(admitted, context, no_executor)
        except BusDownError as error:
            return await self._end_undispatched(decision, call, error, reserved=reserved)

    def _authorize(self, authorizer: Authorizer, call: CallRequested) -> Admission:
        now = time()
        check_accepting(self.service.events, call, now)
        admission = authorizer.authorize(
            call.key_digest, call.server, call.method, call.tool, now, call.restriction
        )
        if admission.terms is not None:
            admission = sized(admission, admission.terms, call)
        if call.max_charge is not None and admission.charge > call.max_charge:
            raise run_budget_error(admission.charge, call.max_charge)
        return admission

    async def _deny(
        self,
        call: CallRequested,
        error: ToolbusError,
        admission: Admission | None,
        claim: OutcomeClaim | None = None,
        payer: Payer | None = None,
        checks: tuple[GuardCheck, ...] = (),
    ) -> CallError:
        """Publish the denial and return its error. An unknown key has no payer."""
        DECISIONS.labels(error.code).inc()
        end_decision_span(error.code)
        if payer is None and admission is not None:
            payer = admission.payer
        elif payer is None:
            with suppress(UnauthorizedError):
                payer = self.authorizer().payer_for(call.key_digest, time())
        snapshot, actors = self.authorizer().snapshot, tuple[str, ...]()
        if payer is not None:
            actors = snapshot.actors(payer.key, call.key_digest)
        content = may_record(snapshot.configuration, admission, checks)
        denied = build_denied(call, error, admission, payer, actors, checks, content=content)
        self.service.events.publish(denied)
        return await self._release(CallError(error), call, claim)

    async def _release(self, reply: R, call: CallRequested, claim: OutcomeClaim | None) -> R:
        """Return the reply to a call that is not dispatched, after releasing its claim."""
        if claim is not None:
            await self.idempotency.release(call, claim)
        return reply

    async def _restore(self, grant: ApprovalGrant | None) -> None:
        """Restore the approval of a call without an intent."""
        if grant is None:
            return
        try:
            await self.approvals.restore(grant)
        except ToolbusError:  # the call's own error is more important to its caller
            log.exception("approval.not_restored", extra={"approval": grant.approval})

    def _undo_later(
        self, call: CallRequested, claim: OutcomeClaim | None, grant: ApprovalGrant | None
    ) -> None:
        """Release the claim and restore the approval of a cancelled call, in a task."""
        if claim is not None or grant is not None:
            self.service.calls.spawn(self._undo(call, claim, grant))

    async def _undo(
        self, call: CallRequested, claim: OutcomeClaim | None, grant: ApprovalGrant | None
    ) -> None:
        await self._restore(grant)
        await self._release(CallError(stopped_error(call)), call, claim)

    async def _end_undispatched(
        self, decision: Decision, call: CallRequested, error: ToolbusError, *, reserved: bool
    ) -> CallError:
        """Publish the outcome of a call that was not dispatched, and return its error."""
        error = error_in_time(call, error)
        self._publish_not_dispatched(call, decision.admission, error, reserved=reserved)
        return await self._release(CallError(error), call, decision.claim)

    def _publish_not_dispatched(
        self, call: CallRequested, admission: Admission, error: ToolbusError, *, reserved: bool
    ) -> None:
        """Publish the outcome of a call that was not dispatched; settlement refunds it."""
        self.service.events.publish(build_not_dispatched(call, admission, error, reserved=reserved))
