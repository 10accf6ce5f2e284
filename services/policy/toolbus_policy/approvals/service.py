"""Request approval for a call, wait for the decision, and allow the call once."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import time
from typing import Any

from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.contracts import CallRequested, InputRequired, TaskCreated
from toolbus_common.contracts.model_calls import is_model_method
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
    ELICITATION_METHODS,
    ApprovalResponse,
    approval_elicitation,
    parse_response,
    rejection_error,
    supports_url_elicitation,
)
from toolbus_policy.approvals.model import (
    MAX_ARGUMENT_BYTES,
    RULE,
    Approval,
    Cause,
    State,
    event_of,
    rule_input,
)
from toolbus_policy.approvals.repository import ApprovalRepository, StoredApproval
from toolbus_policy.approvals.tasks.model import wants_task
from toolbus_policy.approvals.tasks.service import TaskService

ATTEMPTS = 8  # attempts while concurrent changes conflict
WAIT_SHARE = 0.5  # of the call's remaining time; the rest is for the call itself

Bind = Callable[[CallRequested, Principal], str]


@dataclass(frozen=True, slots=True)
class ApprovalLimits:
    """Limits of approvals.

    An approval is pending for at most `pending` seconds. A granted approval can be used for
    `granted` seconds. A key has at most `max_pending_approvals` pending approvals. `public_url` is
    the URL at which people reach ingress.
    """

    pending: float
    granted: float
    max_pending_approvals: int
    public_url: str


@dataclass(frozen=True, slots=True)
class ApprovalGrant:
    """A call that may continue, in the form to dispatch.

    `stored` is the approval that the call used, and `before` is the same approval before its use.
    """

    call: CallRequested
    stored: StoredApproval | None = None
    before: StoredApproval | None = None

    @property
    def approval(self) -> str:
        """The approval's id, which the intent records; empty if no approval is stored."""
        return self.stored.approval.id if self.stored is not None else ""


ApprovalResult = ApprovalGrant | InputRequired | TaskCreated | None


@dataclass(slots=True)
class ApprovalService:
    """Service for calls that need approval.

    `bind` computes the digest that binds an approval to a call and its caller.
    """

    approval_repository: ApprovalRepository
    events: EventPublisher
    bind: Bind
    limits: ApprovalLimits
    task_service: TaskService
    _requesting: Counter[str] = field(default_factory=Counter)
    _waiting: dict[str, "asyncio.Future[bool]"] = field(default_factory=dict)

    async def check(
        self, call: CallRequested, principal: Principal, cause: Cause
    ) -> ApprovalResult:
        """Return the result for the call; None if the call has waited and must be authorized again.

        A model request has no person at its client, so it waits for the decision at once.

        Raises:
            ApprovalRequiredError: no decision yet, or the client cannot open the approval page.
            ApprovalRejectedError: a person rejected the call.
            InvalidError: the arguments are too large for an approval.
            CallCancelledError: the caller cancelled the call while it waited.

        """
        response = parse_response(call.extra)
        if not cause.name:
            return ApprovalGrant(response.without_approval(call))
        if len(call.arguments) > MAX_ARGUMENT_BYTES:
            raise InvalidError(
                "This call needs approval, and its arguments exceed the limit of "
                f"{MAX_ARGUMENT_BYTES} bytes for approvals; send smaller arguments."
            )
        binding = self.bind(call, principal)
        for _ in range(ATTEMPTS):
            # Read the bucket: another replica may have stored a decision moments ago.
            stored = await self.approval_repository.load(binding)
            if (
                stored is None
                or not stored.approval.applies_to(response.state, time())
                or not approvals.covers(stored.approval, cause)
            ):
                made = await self._request(call, principal, cause, binding, stored)
                if made is not None and not is_model_method(call.method):
                    return await self._request_input(made, call, ApprovalResponse())
            elif stored.approval.state is State.PENDING:
                return await self._wait_for_decision(stored, call, response)
            elif (used := await self._use(stored, response, call.call_id)) is not None:
                return ApprovalGrant(response.without_approval(call), used, stored)
        raise BusDownError("Concurrent changes to this call's approval kept conflicting; retry.")

    async def use_approval(
        self, call: CallRequested, principal: Principal, approval_id: str
    ) -> ApprovalGrant:
        """Use the approval for which a deferred call waited; never request another approval.

        Raises:
            ApprovalRequiredError: the call's binding has changed, or the approval was used.
            CallCancelledError: the caller cancelled the call.

        """
        stored = await self.approval_repository.load(self.bind(call, principal))
        if stored is not None and stored.approval.id == approval_id:
            approval = stored.approval
            if approval.state is State.WITHDRAWN:
                raise CallCancelledError("The caller cancelled the call; it was not dispatched.")
            if approval.state is State.GRANTED and approval.is_current(time()):
                used = await self._use(stored, ApprovalResponse(), call.call_id)
                if used is not None:
                    return ApprovalGrant(call, used, stored)
        raise ApprovalRequiredError(
            "The tool or its policy changed since this call was approved, or the approval was "
            "used by another call: the call was not made. Repeat the call to request approval "
            "again.",
            approval=approval_id,
        )

    def record_use(self, grant: ApprovalGrant) -> None:
        """Publish that an approved call continues. Later continuations are not published."""
        if grant.stored is not None and not grant.stored.approval.rounds:
            self.events.publish(event_of(grant.stored.approval, time(), grant.call.call_id))

    async def restore(self, grant: ApprovalGrant) -> None:
        """Restore the approval of a call that was not dispatched after all."""
        if grant.stored is not None and grant.before is not None:
            await self.approval_repository.put(grant.before.approval, grant.stored)

    def cancel(self, call_id: str) -> None:
        """End the wait of a cancelled call."""
        waiting = self._waiting.get(call_id)
        if waiting is not None:
            waiting.cancel()

    async def expire(self) -> None:
        """Expire approvals that were not decided, or not used, in time."""
        now = time()
        for stored in self.approval_repository.all():
            approval = stored.approval
            if approval.state in approvals.OPEN and not approval.is_current(now):
                await self._put(approvals.expired(approval), stored)
        self.approval_repository.evict_ended(now)

    async def _wait_for_decision(
        self, stored: StoredApproval, call: CallRequested, response: ApprovalResponse
    ) -> InputRequired | TaskCreated | None:
        """Wait for the decision if the caller opened the page; else ask the caller to open it."""
        own = response.approval == stored.approval.id
        seconds = (call.deadline - time()) * WAIT_SHARE
        waits = is_model_method(call.method) or (own and response.action == ACCEPTED)
        if not waits:
            return await self._request_input(stored, call, response if own else ApprovalResponse())
        waiting = asyncio.ensure_future(self.approval_repository.wait_for_change(stored, seconds))
        self._waiting[call.call_id] = waiting
        try:
            await asyncio.wait([waiting])
        finally:
            del self._waiting[call.call_id]
            waiting.cancel()
        if waiting.cancelled():
            raise CallCancelledError("The caller cancelled the call before it was approved.")
        if not waiting.result():
            raise self._required_error(stored.approval)
        return None

    async def _use(
        self, stored: StoredApproval, response: ApprovalResponse, call_id: str
    ) -> StoredApproval | None:
        """Use a granted approval, or continue the call that used it.

        Return None on a conflicting change. Raises `ApprovalRejectedError`.
        """
        if stored.approval.state is State.REJECTED:
            raise rejection_error(stored.approval.id, stored.approval.note)
        ends = time() + self.limits.granted
        if stored.approval.state is State.GRANTED:
            used = approvals.used(stored.approval, ends, call_id)
            return await self._put(used, stored, silent=True)
        return await self._put(
            approvals.continued(stored.approval, response.state), stored, silent=True
        )

    async def _request(
        self,
        call: CallRequested,
        principal: Principal,
        cause: Cause,
        binding: str,
        previous: StoredApproval | None,
    ) -> StoredApproval | None:
        """Store a new approval; None on a conflicting change."""
        key = principal.key
        if (
            len(self.approval_repository.pending(key)) + self._requesting[key]
            >= self.limits.max_pending_approvals
        ):
            raise OverloadedError(
                f"This key already has {self.limits.max_pending_approvals} calls pending approval; "
                "decide them ('toolbus approvals'), or wait until they expire."
            )
        now = time()
        made = approvals.new_approval(
            call, principal, cause, binding, (now, now + self.limits.pending)
        )
        self._requesting[key] += 1
        try:
            return await self._put(made, previous, read=rule_input(call, principal, cause))
        finally:
            self._requesting[key] -= 1
            self._requesting += Counter()  # drops keys without requests

    async def _put(
        self,
        approval: Approval,
        previous: StoredApproval | None,
        *,
        read: dict[str, Any] | None = None,
        silent: bool = False,
    ) -> StoredApproval | None:
        """Store a change and publish its event; None on a conflicting change."""
        if self.events.full:
            raise BusDownError(
                "Audit outbox full: changes are rejected until the bus is reachable. Retry later."
            )
        if not await self.approval_repository.put(approval, previous):
            return None
        if not silent:
            self.events.publish(event_of(approval, time(), read=read))
        return self.approval_repository.find(approval.binding)

    async def _request_input(
        self, stored: StoredApproval, call: CallRequested, response: ApprovalResponse
    ) -> InputRequired | TaskCreated:
        """Return a task if the client supports tasks, otherwise the request to open the page.

        Raises `ApprovalRequiredError` if the user declined the page or the client cannot open
        pages.
        """
        if not response.approval and wants_task(call):
            task = await self.task_service.create(
                call, stored.approval, self._page(stored.approval)
            )
            if task is not None:
                return task
        if (
            response.approval
            or call.method not in ELICITATION_METHODS
            or not supports_url_elicitation(call.capabilities)
        ):
            raise self._required_error(stored.approval)
        return approval_elicitation(stored.approval, self._page(stored.approval))

    def _required_error(self, approval: Approval) -> ApprovalRequiredError:
        name = full_name(approval.server, approval.tool)
        why = f"{approval.why} " if approval.why else ""
        return ApprovalRequiredError(
            f"{why}'{name}' needs a person's approval: an operator can run 'toolbus "
            f"approve {approval.id}', or an approver can open {self._page(approval)}. Then repeat "
            "the call with the same arguments.",
            approval=approval.id,
            page=self._page(approval),
            cause=approval.cause,
            rule=approval.cause.removeprefix(RULE) if approval.cause.startswith(RULE) else "",
            expires_at=approval.ends,
        )

    def _page(self, approval: Approval) -> str:
        return f"{self.limits.public_url.rstrip('/')}/approvals/{approval.id}"
