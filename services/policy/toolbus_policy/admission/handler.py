"""The gate every call passes: decide, hold the money, write the intent, hand over."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import time

from msgspec.structs import replace

from toolbus_common.access.config_snapshot import hash_of
from toolbus_common.access.principal import Principal
from toolbus_common.contracts import (
    TOOLS_CALL,
    CallAllowed,
    CallError,
    CallRequested,
    FinalReply,
    InputRequired,
    OutcomeClaim,
    StoredOutcome,
    TaskCreated,
)
from toolbus_common.contracts.replies import ReplyChannel
from toolbus_common.errors import (
    BusDownError,
    ExecutorDownError,
    InvalidError,
    RuleDeniedError,
    ToolbusError,
    UnauthorizedError,
    UnavailableError,
)
from toolbus_common.observability.metrics import DECISIONS
from toolbus_common.observability.trace_context import trace_id
from toolbus_common.observability.tracing import Tracer, current
from toolbus_common.rules import SILENT, Verdict
from toolbus_common.service.service import Service
from toolbus_policy.admission.authorizer import Judge
from toolbus_policy.admission.messages import Yes, admitted_of, denial_of, intent_of, unsent
from toolbus_policy.admission.rule_evaluator import Ruling
from toolbus_policy.approvals.elicitation import STATE
from toolbus_policy.approvals.model import RULE, Cause
from toolbus_policy.approvals.service import Approving, Permit
from toolbus_policy.approvals.tasks.model import concerns
from toolbus_policy.idempotency.claims import Once
from toolbus_policy.idempotency.replay import event_of, replayed
from toolbus_policy.ledger.admitted_call import Admission, Payer
from toolbus_policy.ledger.ledger import Ledger
from toolbus_policy.ledger.limits import repeated
from toolbus_policy.ledger.reservation import About
from toolbus_policy.ledger.reserve_args import Claim, over_run_budget

log = logging.getLogger(__name__)

ALLOWED = DECISIONS.labels("allowed")
REPLAYED = DECISIONS.labels("replayed")
_tracer = Tracer("policy")


@dataclass(frozen=True, slots=True)
class Gate:
    """Policy's handler of `CallRequested`. `judge` gives the judge of the newest snapshot."""

    service: Service
    judge: Callable[[], Judge]
    ledger: Ledger
    approving: Approving
    once: Once
    reap_grace: float

    def pass_through(self, call: CallRequested, reply: ReplyChannel) -> Awaitable[None]:
        """Admit the call and hand it to executor, or answer why not."""
        span = _tracer.span("toolbus.decide", call.traceparent)
        return span.around(self._pass(call, reply))

    async def _pass(self, call: CallRequested, reply: ReplyChannel) -> None:
        judge, admission = self.judge(), None
        try:
            try:
                admission = self._decide(judge, call)
            except UnauthorizedError:
                if not await self._knows_by_now(judge, call):
                    raise
                admission = self._decide(judge, call)
            verdict = _ruled(judge.ruling, call, admission) if judge.ruling else SILENT
        except ToolbusError as error:
            await self._deny(call, error, reply, admission)
            return
        yes = Yes(judge, admission, verdict)
        if call.method != TOOLS_CALL and concerns(call):
            await self._tell_of_task(yes, call, reply)
        elif call.idempotency_key:
            await self._pass_once(yes, call, reply)
        elif _may_need_person(yes, call):
            await self._pass_by_approval(yes, call, reply)
        else:
            await self._go_on(yes, call, reply)

    async def _pass_once(self, yes: Yes, call: CallRequested, reply: ReplyChannel) -> None:
        """The same for a call with an idempotency key: made once, and answered from then on."""
        principal = yes.admission.payer.principal
        try:
            turn = await self.once.turn(call, principal)
        except ToolbusError as error:
            await self._deny(call, error, reply, yes.admission)
            return
        if isinstance(turn, StoredOutcome):
            await self._replay(turn, call, reply, principal)
            return
        yes = replace(yes, claim=turn)
        if _may_need_person(yes, call):
            await self._pass_by_approval(yes, call, reply)
        else:
            await self._go_on(yes, call, reply)

    async def _replay(
        self, kept: StoredOutcome, call: CallRequested, reply: ReplyChannel, principal: Principal
    ) -> None:
        """Answer a call with what became of the first one with its idempotency key."""
        told = replayed(kept, call.family)
        self.service.events.publish(event_of(kept, call, principal, told))
        REPLAYED.inc()
        await reply.send(told)

    async def _pass_by_approval(self, yes: Yes, call: CallRequested, reply: ReplyChannel) -> None:
        """The same for a call that may need a person. What time passed over is decided anew."""
        turn, claim, admission = None, yes.claim, None
        try:
            while turn is None:
                judge = self.judge()
                admission = self._decide(judge, call)
                verdict = _ruled(judge.ruling, call, admission) if judge.ruling else SILENT
                yes = Yes(judge, admission, verdict, claim)
                principal, cause = admission.payer.principal, _cause(call, admission, verdict)
                with _tracer.below("toolbus.approval"):
                    turn = await self.approving.turn(call, principal, cause)
        except ToolbusError as error:
            await self._deny(call, error, reply, admission, claim)
            return
        if isinstance(turn, InputRequired | TaskCreated):
            await self._answer(turn, call, reply, claim)
        elif not await self._go_on(yes, turn.call, reply, turn):
            await self.approving.give_back(turn)

    async def pass_deferred(
        self, call: CallRequested, reply: ReplyChannel, key: str, approval: str
    ) -> None:
        """The same for a call that became a task, now that a person has approved it.

        While it waited nothing was claimed for its idempotency key: that is done here.
        """
        with _tracer.span("toolbus.decide", call.traceparent):
            await self._pass_approved(call, reply, key, approval)

    async def _pass_approved(
        self, call: CallRequested, reply: ReplyChannel, key: str, approval: str
    ) -> None:
        judge, who, admission, claim = self.judge(), None, None, None
        try:
            now = time()
            self._check(call, now)
            who = judge.holder(key, now)
            about = (call.server, call.method, call.tool)
            admission = judge.decide_for(who.principal, *about, call.restriction)
            verdict = _ruled(judge.ruling, call, admission) if judge.ruling else SILENT
            turn = await self.once.turn(call, who.principal) if call.idempotency_key else None
            if isinstance(turn, StoredOutcome):
                await self._replay(turn, call, reply, who.principal)
                return
            claim = turn
            permit = await self.approving.spend(call, who.principal, approval)
        except ToolbusError as error:
            await self._deny(call, error, reply, admission, claim, who)
            return
        if not await self._go_on(Yes(judge, admission, verdict, claim), call, reply, permit):
            await self.approving.give_back(permit)

    async def _tell_of_task(self, yes: Yes, call: CallRequested, reply: ReplyChannel) -> None:
        """Answer who asks after a task that is kept here, or pass the question on to its server."""
        try:
            told = await self.approving.deferring.answer(call, yes.admission.payer.key)
        except ToolbusError as error:
            await reply.send(CallError(error))
            return
        if isinstance(told, CallRequested):
            await self._go_on(yes, told, reply)
        else:
            await reply.send(told)

    async def _go_on(
        self, yes: Yes, call: CallRequested, reply: ReplyChannel, permit: Permit | None = None
    ) -> bool:
        """Hold the money, write the intent, hand over; whether it came to the last."""
        admission = yes.admission
        try:
            reserved = await self._reserve(call, admission)
        except ToolbusError as error:
            await self._deny(call, error, reply, admission, yes.claim)
            return False
        intent = intent_of(yes, call, permit.approval if permit else "", reserved=reserved)
        try:
            await self._record_intent(intent)
        except ToolbusError as error:
            self._say_not_sent(call, admission, error, reserved=reserved)
            await self._answer(CallError(error), call, reply, yes.claim)
            return False
        if permit is not None:
            self.approving.record_use(permit)
        ALLOWED.inc()
        await self._hand_over(yes, call, reply, reserved=reserved)
        return True

    def _decide(self, judge: Judge, call: CallRequested) -> Admission:
        now = time()
        self._check(call, now)
        admission = judge.decide(
            call.key_digest, call.server, call.method, call.tool, now, call.restriction
        )
        if call.most is not None and admission.charge > call.most:
            raise over_run_budget(admission.charge, call.most)
        return admission

    async def _knows_by_now(self, judge: Judge, call: CallRequested) -> bool:
        """Whether the proof is that of an access token which was found good a moment ago."""
        return await judge.snapshot.bearers.learn(hash_of(call.key_digest)) is not None

    def _check(self, call: CallRequested, now: float) -> None:
        if now > call.deadline:
            raise InvalidError("The call's deadline had passed before it was decided.")
        if self.service.events.full:
            raise BusDownError("Events can be kept nowhere (the spool is full): no call may run.")

    async def _reserve(self, call: CallRequested, admission: Admission) -> bool:
        if not admission.limited:
            return False
        claim = Claim(
            call.call_id,
            admission,
            _about(call, admission, self.ledger.newest),
            call.deadline + self.reap_grace,
            _repeated(call, admission) if admission.loops else "",
        )
        await _tracer.below("toolbus.reserve").around(self.ledger.reserve(claim))
        return bool(admission.budgets)

    async def _record_intent(self, intent: CallAllowed) -> None:
        """Return once the stream has the intent, before the call's deadline.

        The sweeper relies on both: an intent that comes after the deadline is of no call that ran.
        Raises `BusDownError` or `UnavailableError`.
        """
        try:
            with _tracer.below("toolbus.record_intent"):
                await self.service.events.publish_durable(intent)
        except BusDownError as error:
            raise _not_recorded() from error
        if time() > intent.deadline:
            raise UnavailableError(
                "The call's deadline passed while it was being recorded; nothing was sent. Retry."
            )

    async def _hand_over(
        self, yes: Yes, call: CallRequested, reply: ReplyChannel, *, reserved: bool
    ) -> None:
        admission = yes.admission
        admitted = admitted_of(yes, call, reply.address, reserved=reserved)
        _decided("allowed")

        def nobody() -> None:
            error = ExecutorDownError(f"No executor serves {call.server} now; retry shortly.")
            self._say_not_sent(call, admission, error, reserved=reserved)
            self.service.spawn(self._answer(CallError(error), call, reply, yes.claim))

        try:
            await self.service.calls.hand_over(admitted, reply, nobody)
        except BusDownError as error:
            self._say_not_sent(call, admission, error, reserved=reserved)
            await self._answer(CallError(error), call, reply, yes.claim)

    async def _deny(
        self,
        call: CallRequested,
        error: ToolbusError,
        reply: ReplyChannel,
        admission: Admission | None,
        claim: OutcomeClaim | None = None,
        who: Payer | None = None,
    ) -> None:
        DECISIONS.labels(error.code).inc()
        _decided(error.code)
        if who is None:
            who = admission.payer if admission is not None else self._who(call)
        actors = self.judge().snapshot.actors(who.key, call.key_digest) if who is not None else ()
        self.service.events.publish(denial_of(call, error, admission, who, actors))
        await self._answer(CallError(error), call, reply, claim)

    async def _answer(
        self,
        told: FinalReply | CallError,
        call: CallRequested,
        reply: ReplyChannel,
        claim: OutcomeClaim | None,
    ) -> None:
        """Answer a call that is not handed over."""
        if claim is not None:
            await self.once.release(call, claim)
        await reply.send(told)

    def _who(self, call: CallRequested) -> Payer | None:
        try:
            return self.judge().asker(call.key_digest, time())
        except UnauthorizedError:
            return None

    def _say_not_sent(
        self, call: CallRequested, admission: Admission, error: ToolbusError, *, reserved: bool
    ) -> None:
        """The outcome of a call that reached nobody; settlement refunds it from this event."""
        self.service.events.publish(unsent(call, admission, error, reserved=reserved))


def _decided(decision: str) -> None:
    """The decision's span ends here; in one process the call itself goes on below."""
    span = current()
    if span.recorded:
        span.note("toolbus.decision", decision)
        span.end()


def _may_need_person(yes: Yes, call: CallRequested) -> bool:
    """Whether a person is to be asked, or an answer of one comes with the call."""
    wanted = yes.admission.cause or yes.verdict.approve_by
    return bool(wanted or (call.extra and STATE in call.extra))


def _ruled(ruling: Ruling, call: CallRequested, admission: Admission) -> Verdict:
    """What the rules say, when they do not forbid the call."""
    verdict = ruling.verdict(call, admission.payer.principal, admission.charge, time())
    if verdict.denied_by:
        raise RuleDeniedError(verdict.reason, rule=verdict.denied_by)
    return verdict


def _cause(call: CallRequested, admission: Admission, verdict: Verdict) -> Cause:
    """Who wants a person asked. A task belongs to a call that was let through."""
    if admission.cause or not verdict.approve_by or call.method.startswith("tasks/"):
        return Cause(admission.cause, charge=admission.charge)
    return Cause(f"{RULE}{verdict.approve_by}", verdict.reason, admission.charge)


def _about(call: CallRequested, admission: Admission, after: int) -> str:
    trace, key = trace_id(call.traceparent), admission.payer.key
    return About(call.server, call.tool, key, trace, call.parent_id, after).encode()


def _repeated(call: CallRequested, admission: Admission) -> str:
    run = call.run or f"key:{admission.payer.key}"
    return repeated(run, call.server, call.tool, call.arguments)


def _not_recorded() -> BusDownError:
    return BusDownError(
        "The call could not be recorded, so it was not made; nothing was sent. Retry."
    )
