"""A call that needs a person: asked for once, waited for, and let through once."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import time
from typing import Any

from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.contracts import CallRequested, InputRequired, TaskCreated
from toolbus_common.errors import (
    ApprovalRequiredError,
    BusDownError,
    CallCancelledError,
    InvalidError,
    OverloadedError,
)
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_policy.approvals import model as approvals
from toolbus_policy.approvals.elicitation import (
    ACCEPTED,
    ASKABLE,
    Brought,
    brought,
    can_open_pages,
    question,
    refusal,
)
from toolbus_policy.approvals.model import (
    LARGEST_ARGUMENTS,
    RULE,
    Approval,
    Cause,
    State,
    event_of,
    read_by_rules,
)
from toolbus_policy.approvals.repository import Docket, Kept
from toolbus_policy.approvals.tasks.model import wants_task
from toolbus_policy.approvals.tasks.service import Deferring

ATTEMPTS = 8  # to change an entry that others change too
WAITED_SHARE = 0.5  # of the time a call has left: the other half is for the call itself

Bind = Callable[[CallRequested, Principal], str]


@dataclass(frozen=True, slots=True)
class Terms:
    """How long an approval may wait for a person, and then for its call, in seconds."""

    pending: float
    granted: float
    most_pending: int
    public_url: str


@dataclass(frozen=True, slots=True)
class Permit:
    """The call may go on, as it is to be handed over.

    `kept` is the approval it has used, `before` what that was until now.
    """

    call: CallRequested
    kept: Kept | None = None
    before: Kept | None = None

    @property
    def approval(self) -> str:
        """The approval's id, for the intent."""
        return self.kept.approval.id if self.kept is not None else ""


Turn = Permit | InputRequired | TaskCreated | None


@dataclass(slots=True)
class Approving:
    """What becomes of calls that need a person. `bind` works out what an approval must hold for."""

    docket: Docket
    events: EventPublisher
    bind: Bind
    terms: Terms
    deferring: Deferring
    _asking: Counter[str] = field(default_factory=Counter)
    _waiting: dict[str, "asyncio.Future[bool]"] = field(default_factory=dict)

    async def turn(self, call: CallRequested, principal: Principal, cause: Cause) -> Turn:
        """What the call is due now; None when it has waited, and must be decided about anew.

        Raises:
            ApprovalRequiredError: the client cannot be shown a page, or nobody has decided yet.
            ApprovalRejectedError: a person said no.

        """
        came = brought(call.extra)
        if not cause.name:
            return Permit(came.without_ours(call))
        if len(call.arguments) > LARGEST_ARGUMENTS:
            raise InvalidError(
                f"A person must approve this call, and can be shown {LARGEST_ARGUMENTS} bytes of "
                "arguments at most; send less."
            )
        binding = self.bind(call, principal)
        for _ in range(ATTEMPTS):
            # As the bucket has it: another replica may have heard the decision a moment ago.
            kept = await self.docket.whole(binding)
            if kept is None or not kept.approval.lets_on(came.state, time()):
                made = await self._ask(call, principal, cause, binding, kept)
                if made is not None:
                    return await self._told(made, call, Brought())
            elif kept.approval.state is State.PENDING:
                return await self._pending(kept, call, came)
            elif (used := await self._use(kept, came, call.call_id)) is not None:
                return Permit(came.without_ours(call), used, kept)
        raise BusDownError("This call's approval is being changed by others all the time; retry.")

    async def spend(self, call: CallRequested, principal: Principal, approval_id: str) -> Permit:
        """Use the one approval a deferred call waited for; no other is asked for.

        Raises:
            ApprovalRequiredError: what it holds for has changed since, or it was used.
            CallCancelledError: the caller took it back.

        """
        kept = await self.docket.whole(self.bind(call, principal))
        if kept is not None and kept.approval.id == approval_id:
            approval = kept.approval
            if approval.state is State.WITHDRAWN:
                raise CallCancelledError("The caller took the call back; it was not made.")
            if approval.state is State.GRANTED and approval.stands(time()):
                used = await self._use(kept, Brought(), call.call_id)
                if used is not None:
                    return Permit(call, used, kept)
        raise ApprovalRequiredError(
            "The tool, or the policy for it, has changed since this call was approved, or its "
            "approval was used: it was not made. Make it again to ask anew.",
            approval=approval_id,
        )

    def record_use(self, permit: Permit) -> None:
        """Say that an approved call goes on; its further rounds tell no more of it."""
        if permit.kept is not None and not permit.kept.approval.rounds:
            self.events.publish(event_of(permit.kept.approval, time(), permit.call.call_id))

    async def give_back(self, permit: Permit) -> None:
        """The call was refused after all, and nothing was sent: its approval is as it was."""
        if permit.kept is not None and permit.before is not None:
            await self.docket.put(permit.before.approval, permit.kept)

    def cancel(self, call_id: str) -> None:
        """The caller no longer waits."""
        waiting = self._waiting.get(call_id)
        if waiting is not None:
            waiting.cancel()

    async def expire(self) -> None:
        """End what nobody decided, or nobody made use of, in time."""
        now = time()
        for kept in self.docket.every():
            approval = kept.approval
            if approval.state in approvals.OPEN and not approval.stands(now):
                await self._put(approvals.expired(approval), kept)
        self.docket.forget_ended(now)

    async def _pending(
        self, kept: Kept, call: CallRequested, came: Brought
    ) -> InputRequired | TaskCreated | None:
        """Nobody has decided. A caller that was shown the page waits here for who decides."""
        ours = came.approval == kept.approval.id
        seconds = (call.deadline - time()) * WAITED_SHARE
        if not ours or came.action != ACCEPTED:
            return await self._told(kept, call, came if ours else Brought())
        waiting = asyncio.ensure_future(self.docket.newer(kept, seconds))
        self._waiting[call.call_id] = waiting
        try:
            await asyncio.wait([waiting])
        finally:
            del self._waiting[call.call_id]
            waiting.cancel()
        if waiting.cancelled():
            raise CallCancelledError("The caller took the call back before anybody decided.")
        if not waiting.result():
            raise self._required(kept.approval)
        return None

    async def _use(self, kept: Kept, came: Brought, call_id: str) -> Kept | None:
        """Use an approval, or go on with the call that has; None when somebody was faster."""
        if kept.approval.state is State.REJECTED:
            raise refusal(kept.approval.id, kept.approval.note)
        ends = time() + self.terms.granted
        if kept.approval.state is State.GRANTED:
            used = approvals.used(kept.approval, ends, call_id)
            return await self._put(used, kept, silent=True)
        return await self._put(approvals.gone_on(kept.approval, came.state), kept, silent=True)

    async def _ask(
        self,
        call: CallRequested,
        principal: Principal,
        cause: Cause,
        binding: str,
        over: Kept | None,
    ) -> Kept | None:
        """Put a new approval on the docket; None when somebody else changed it meanwhile."""
        key = principal.key
        if len(self.docket.waiting(key)) + self._asking[key] >= self.terms.most_pending:
            raise OverloadedError(
                f"{self.terms.most_pending} calls of this key wait for a person already; have "
                "them decided ('toolbus approvals'), or wait until they expire."
            )
        now = time()
        made = approvals.asked(call, principal, cause, binding, (now, now + self.terms.pending))
        self._asking[key] += 1
        try:
            return await self._put(made, over, read=read_by_rules(call, principal, cause.charge))
        finally:
            self._asking[key] -= 1
            self._asking += Counter()  # forgets who asks nothing

    async def _put(
        self,
        approval: Approval,
        over: Kept | None,
        *,
        read: dict[str, Any] | None = None,
        silent: bool = False,
    ) -> Kept | None:
        """Change an entry and say so; None when somebody was faster."""
        if self.events.full:
            raise BusDownError(
                "Events can be kept nowhere (the spool is full): nothing may change."
            )
        if not await self.docket.put(approval, over):
            return None
        if not silent:
            self.events.publish(event_of(approval, time(), read=read))
        return self.docket.find(approval.binding)

    async def _told(
        self, kept: Kept, call: CallRequested, came: Brought
    ) -> InputRequired | TaskCreated:
        """A task, where the client takes one; else a page to open, unless it declined to."""
        if not came.approval and wants_task(call):
            task = await self.deferring.begin(call, kept.approval, self._page(kept.approval))
            if task is not None:
                return task
        if came.approval or call.method not in ASKABLE or not can_open_pages(call.capabilities):
            raise self._required(kept.approval)
        return question(kept.approval, self._page(kept.approval))

    def _required(self, approval: Approval) -> ApprovalRequiredError:
        name = full_name(approval.server, approval.tool)
        why = f"{approval.why} " if approval.why else ""
        return ApprovalRequiredError(
            f"{why}{name} waits for a person to approve this call: have the operator run 'toolbus "
            f"approve {approval.id}', or an approver open {self._page(approval)}. Then make the "
            "same call again, with the same arguments.",
            approval=approval.id,
            page=self._page(approval),
            cause=approval.cause,
            rule=approval.cause.removeprefix(RULE) if approval.cause.startswith(RULE) else "",
            expires_at=approval.ends,
        )

    def _page(self, approval: Approval) -> str:
        return f"{self.terms.public_url.rstrip('/')}/approvals/{approval.id}"
