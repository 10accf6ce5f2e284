"""Show pending approvals to operators and authorized keys, and store their decisions."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import time

from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of
from toolbus_common.access.oauth_scopes import TOOLS
from toolbus_common.config import Key
from toolbus_common.contracts import ApprovalsReply, ApprovalState, ApproverRequest
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.errors import (
    BusDownError,
    ForbiddenError,
    InvalidError,
    UnauthorizedError,
    UnknownApprovalError,
)
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_policy.approvals import model as approvals
from toolbus_policy.approvals.model import MAX_ARGUMENT_BYTES, Approval, State, event_of
from toolbus_policy.approvals.repository import ApprovalRepository, StoredApproval

MAX_NOTE_LENGTH = 512
MAX_NAME_LENGTH = 64
MAX_LISTED = 100
LISTED_ARGUMENT_LENGTH = 4096  # characters of each call's arguments in a list
PROPAGATION_SECONDS = 1.0  # the longest wait for an approval that another replica just created
ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Approver:
    """A person who decides about approvals.

    `name` is the recorded name. `key` and `user` are empty for an operator. With an empty
    `customer`, the approver can see the approvals of all customers.
    """

    name: str
    key: str = ""
    user: str = ""
    customer: str = ""

    def can_see(self, approval: Approval) -> bool:
        """Return whether the approver may see the approval.

        A key sees only its customer's approvals.
        """
        return self.customer in ("", approval.customer)

    def is_caller(self, approval: Approval) -> bool:
        """Return whether the call was made with this key or another key of the same user."""
        return bool(self.key) and (
            self.key == approval.key or (self.user != "" and self.user == approval.user)
        )


def operator(name: str) -> Approver:
    """Return the approver for an operator. `name` is the name that the operator gave."""
    return Approver(f"operator:{name[:MAX_NAME_LENGTH]}")


def approver_for_key(snapshot: ConfigSnapshot, key_digest: str, now: float) -> Approver:
    """Return the approver for a key. Raises `UnauthorizedError` or `ForbiddenError`."""
    found = snapshot.principal_for(key_digest, now)
    if found is None:
        raise UnauthorizedError("Invalid, revoked or expired API key.")
    if "approve" not in found.own.rights:
        raise ForbiddenError(
            "This key may not decide approvals. An operator can grant it with 'rights: [approve]'."
        )
    bearer = snapshot.bearers.known(hash_of(key_digest))
    if bearer is not None and (bearer.actors or bearer.scope != TOOLS):
        raise ForbiddenError(
            "A delegated token, or a token without access to all tools, cannot decide approvals: "
            f"use your own token with scope '{TOOLS}'."
        )
    customer = "" if found.customer == DEFAULT_CUSTOMER else found.customer
    return Approver(f"key:{found.key}", found.key, _user(found.own), customer)


def _user(key: Key) -> str:
    return f"user:{key.user}" if key.user else ""


@dataclass(slots=True)
class ApproverService:
    """Service that shows approvals to approvers and stores the approvers' decisions."""

    approval_repository: ApprovalRepository
    events: EventPublisher
    snapshot: Callable[[], ConfigSnapshot]
    granted_seconds: float

    async def handle(self, request: ApproverRequest) -> ApprovalsReply:
        """Handle a request from the holder of a key, within that key's rights."""
        who = approver_for_key(self.snapshot(), request.key_digest, time())
        if request.action == "show":
            return await self.show(who, request.id)
        return await self.decide(who, request.id, request.note, approve=request.action == "approve")

    async def show(self, who: Approver, approval_id: str = "") -> ApprovalsReply:
        """Return the pending approvals that the approver may see, or the approval with this id.

        The list contains at most 100 approvals, with the first 4,096 characters of their arguments.
        Raises `UnknownApprovalError`.
        """
        if approval_id:
            return _full_reply(await self._load(who, approval_id))
        waiting = [
            stored for stored in self.approval_repository.pending() if who.can_see(stored.approval)
        ]
        bindings = [stored.approval.binding for stored in waiting[:MAX_LISTED]]
        found = await asyncio.gather(*map(self.approval_repository.load, bindings))
        states = [
            approvals.state_of(stored.approval, LISTED_ARGUMENT_LENGTH)
            for stored in found
            if stored is not None and stored.approval.state is State.PENDING
        ]
        return ApprovalsReply(approvals=tuple(states), more=len(waiting) > MAX_LISTED)

    async def decide(
        self, who: Approver, approval_id: str, note: str, *, approve: bool
    ) -> ApprovalsReply:
        """Approve or reject a pending approval.

        Raises:
            UnknownApprovalError: no approval with this id is pending.
            ForbiddenError: the approver made the call.
            InvalidError: the note is too long.
            BusDownError: the decision cannot be stored.

        """
        if len(note) > MAX_NOTE_LENGTH:
            raise InvalidError(f"The note exceeds {MAX_NOTE_LENGTH} characters; shorten it.")
        if self.events.full:
            raise BusDownError(
                "Audit outbox full: changes are rejected until the bus is reachable. Retry later."
            )
        for _ in range(ATTEMPTS):
            stored = await self._load(who, approval_id)
            approval = stored.approval
            if approval.state is not State.PENDING or not approval.is_current(time()):
                raise _not_pending_error(approval)
            if who.is_caller(approval):
                raise ForbiddenError(
                    "Approvers cannot decide about their own calls; ask another approver."
                )
            decided = (
                approvals.granted(approval, who.name, note, time() + self.granted_seconds)
                if approve
                else approvals.rejected(approval, who.name, note, approval.ends)
            )
            if await self.approval_repository.put(decided, stored):
                self.events.publish(event_of(decided, time()))
                return ApprovalsReply(approvals=(approvals.state_of(decided, 0),))
        raise BusDownError("Concurrent changes to this approval kept conflicting; retry.")

    async def _load(self, who: Approver, approval_id: str) -> StoredApproval:
        known = await self.approval_repository.find_by_id(approval_id, PROPAGATION_SECONDS)
        stored = (
            await self.approval_repository.load(known.approval.binding)
            if known is not None
            else None
        )
        if stored is None or stored.approval.id != approval_id or not who.can_see(stored.approval):
            raise UnknownApprovalError(
                "No approval with this id is pending: the id is unknown, or the approval expired. "
                "'toolbus approvals' lists pending approvals."
            )
        return stored


def _full_reply(stored: StoredApproval) -> ApprovalsReply:
    state: ApprovalState = approvals.state_of(stored.approval, MAX_ARGUMENT_BYTES)
    return ApprovalsReply(approvals=(state,))


def _not_pending_error(approval: Approval) -> UnknownApprovalError:
    shown = approval.is_current(time()) or approval.state is State.WITHDRAWN
    state = approval.state if shown else State.EXPIRED
    by = f" by {approval.by}" if approval.by and state is not State.EXPIRED else ""
    return UnknownApprovalError(f"This approval is no longer pending: it is {state.value}{by}.")
