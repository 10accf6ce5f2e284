"""The gate every call passes: decide, hold the money, write the intent, hand over."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from time import time

from toolbus_common.builtin import BUILT_IN
from toolbus_common.contracts import (
    CallAdmitted,
    CallAllowed,
    CallDenied,
    CallFailed,
    CallRequested,
    Failed,
)
from toolbus_common.errors import (
    BusDownError,
    ExecutorDownError,
    InvalidError,
    ToolbusError,
    UnauthorizedError,
)
from toolbus_common.exchange import Reply
from toolbus_common.lineage import DEFAULT_SCOPE
from toolbus_common.metrics import DECISIONS
from toolbus_common.room import Room
from toolbus_common.trace import trace_id
from toolbus_policy.ledger import Claim, Ledger
from toolbus_policy.rules import Admission, Judge

log = logging.getLogger(__name__)

ALLOWED = DECISIONS.labels("allowed")


@dataclass(frozen=True, slots=True)
class Gate:
    """Policy's handler of `CallRequested`. `judge` gives the judge of the newest snapshot."""

    room: Room
    judge: Callable[[], Judge]
    ledger: Ledger
    reap_grace: float

    async def pass_through(self, call: CallRequested, reply: Reply) -> None:
        """Admit the call and hand it to executor, or answer why not."""
        judge = self.judge()
        try:
            admission = self._decide(judge, call)
            reserved = await self._reserve(call, admission)
        except ToolbusError as error:
            await self._deny(call, error, reply)
            return
        if not await self._record_intent(judge, call, admission, reserved=reserved):
            await reply.send(Failed(_not_recorded()))
            return
        ALLOWED.inc()
        await self._hand_over(call, admission, reply, reserved=reserved)

    def _decide(self, judge: Judge, call: CallRequested) -> Admission:
        now = time()
        if now > call.deadline:
            raise InvalidError("The call's deadline had passed before it was decided.")
        if self.room.facts.full:
            raise BusDownError("Facts can be kept nowhere (the spool is full): no call may run.")
        return judge.decide(call.proof, call.server, call.method, call.tool, now, call.narrower)

    async def _reserve(self, call: CallRequested, admission: Admission) -> bool:
        if not admission.budgets and not admission.principal.rates:
            return False
        due = call.deadline + self.reap_grace
        await self.ledger.reserve(Claim(call.call_id, admission, _about(call, admission), due))
        return bool(admission.budgets)

    async def _record_intent(
        self, judge: Judge, call: CallRequested, admission: Admission, *, reserved: bool
    ) -> bool:
        """No durable intent, no call: what was held comes back with the fact that says so."""
        principal = admission.principal
        intent = CallAllowed(
            id=f"{call.call_id}.allowed",
            at=time(),
            scope=principal.scope,
            call_id=call.call_id,
            parent_id=call.parent_id,
            trace_id=trace_id(call.traceparent),
            key=principal.key,
            team=principal.team,
            server=call.server,
            tool=call.tool,
            method=call.method,
            charge=admission.charge,
            reserved=reserved,
            arguments_digest=sha256(call.arguments).hexdigest(),
            arguments_bytes=len(call.arguments),
            deadline=call.deadline,
            policy_version=judge.version,
        )
        try:
            await self.room.facts.record(intent)
        except BusDownError as error:
            self._say_not_sent(call, admission, error, reserved=reserved)
            return False
        return True

    async def _hand_over(
        self, call: CallRequested, admission: Admission, reply: Reply, *, reserved: bool
    ) -> None:
        principal = admission.principal
        admitted = CallAdmitted(
            call_id=call.call_id,
            reply_to=reply.address,
            server=call.server,
            tool=call.tool,
            scope=principal.scope,
            key=principal.key,
            era=call.era,
            deadline=call.deadline,
            traceparent=call.traceparent,
            progress=call.progress,
            parent_id=call.parent_id,
            method=call.method,
            capabilities=call.capabilities,
            log_level=call.log_level,
            extra=call.extra,
            charge=admission.charge,
            reserved=reserved,
            arguments=call.arguments,
        )
        if call.server == BUILT_IN:
            admitted = admitted.model_copy(update={"proof": call.proof, "narrower": call.narrower})
        if reserved:
            self.ledger.dispatch(principal.scope, call.call_id)

        def nobody() -> None:
            error = ExecutorDownError(f"No executor serves {call.server} now; retry shortly.")
            self._say_not_sent(call, admission, error, reserved=reserved)
            self.room.spawn(reply.send(Failed(error)))

        try:
            await self.room.calls.hand_over(admitted, reply, nobody)
        except BusDownError as error:
            self._say_not_sent(call, admission, error, reserved=reserved)
            await reply.send(Failed(error))

    async def _deny(self, call: CallRequested, error: ToolbusError, reply: Reply) -> None:
        DECISIONS.labels(error.code).inc()
        key, scope = self._who(call)
        self.room.facts.say(
            CallDenied(
                id=f"{call.call_id}.denied",
                at=time(),
                scope=scope,
                call_id=call.call_id,
                parent_id=call.parent_id,
                trace_id=trace_id(call.traceparent),
                key=key,
                server=call.server,
                tool=call.tool,
                method=call.method,
                code=error.code,
                reason=error.reason,
            )
        )
        await reply.send(Failed(error))

    def _who(self, call: CallRequested) -> tuple[str, str]:
        try:
            return self.judge().owner(call.proof, time())
        except UnauthorizedError:
            return "", DEFAULT_SCOPE

    def _say_not_sent(
        self, call: CallRequested, admission: Admission, error: ToolbusError, *, reserved: bool
    ) -> None:
        """The outcome of a call that reached nobody; settlement refunds it from this fact."""
        self.room.facts.say(
            CallFailed(
                id=f"{call.call_id}.failed",
                at=time(),
                scope=admission.principal.scope,
                call_id=call.call_id,
                parent_id=call.parent_id,
                trace_id=trace_id(call.traceparent),
                key=admission.principal.key,
                server=call.server,
                tool=call.tool,
                method=call.method,
                reserved=reserved,
                code=error.code,
                reason=error.reason,
                sent=False,
            )
        )


def _about(call: CallRequested, admission: Admission) -> str:
    """What the reaper must know of a call to say what became of it."""
    fields = (call.server, call.tool, admission.principal.key, trace_id(call.traceparent))
    return "|".join((*fields, call.parent_id))


def _not_recorded() -> BusDownError:
    return BusDownError(
        "The call could not be recorded, so it was not made; nothing was sent. Retry."
    )
