"""People who decide: operators, and keys with the right to, of whom each is asked who it is."""

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
from toolbus_policy.approvals.model import LARGEST_ARGUMENTS, Approval, State, event_of
from toolbus_policy.approvals.repository import Docket, Kept

LONGEST_NOTE = 512
LONGEST_NAME = 64
MOST_LISTED = 100
LISTED_ARGUMENTS = 4096  # characters of each, in a list
HEARD_SECONDS = 1.0  # within which every replica has heard of an approval
ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Approver:
    """Who decides, by the name that is recorded; a key also by what it may decide."""

    name: str
    key: str = ""
    user: str = ""
    customer: str = ""

    def concerned_by(self, approval: Approval) -> bool:
        """Whether it is this approver's to see: a customer's key sees that customer's."""
        return self.customer in ("", approval.customer)

    def asked_it(self, approval: Approval) -> bool:
        """Whether the call is this approver's own, under this key or another of the person's."""
        return bool(self.key) and (
            self.key == approval.key or (self.user != "" and self.user == approval.user)
        )


def operator(name: str) -> Approver:
    """Whoever holds the operator's seed, as they name themselves."""
    return Approver(f"operator:{name[:LONGEST_NAME]}")


def holder(snapshot: ConfigSnapshot, key_digest: str, now: float) -> Approver:
    """Whoever holds a key. Raises `UnauthorizedError` or `ForbiddenError`."""
    found = snapshot.principal_for(key_digest, now)
    if found is None:
        raise UnauthorizedError("This key opens nothing: it is unknown, revoked or expired.")
    if "approve" not in found.own.rights:
        raise ForbiddenError(
            "This key may not decide approvals; an operator can give it 'rights: [approve]'."
        )
    bearer = snapshot.bearers.known(hash_of(key_digest))
    if bearer is not None and (bearer.actors or bearer.scope != TOOLS):
        raise ForbiddenError(
            "Nobody decides in another's name, nor with a token for less than all tools: come with "
            f"one of your own, for the scope {TOOLS}."
        )
    customer = "" if found.customer == DEFAULT_CUSTOMER else found.customer
    return Approver(f"key:{found.key}", found.key, _user(found.own), customer)


def _user(key: Key) -> str:
    return f"user:{key.user}" if key.user else ""


@dataclass(slots=True)
class Approvers:
    """Answers who asks what waits, and writes what they decide."""

    docket: Docket
    events: EventPublisher
    snapshot: Callable[[], ConfigSnapshot]
    granted_seconds: float

    async def answer(self, asked: ApproverRequest) -> ApprovalsReply:
        """What the holder of a key wants, as far as the key goes."""
        who = holder(self.snapshot(), asked.key_digest, time())
        if asked.wish == "show":
            return await self.show(who, asked.id)
        return await self.decide(who, asked.id, asked.note, approve=asked.wish == "approve")

    async def show(self, who: Approver, approval_id: str = "") -> ApprovalsReply:
        """What waits and concerns them, in short; or one approval, in full."""
        if approval_id:
            return _one(await self._found(who, approval_id))
        waiting = [kept for kept in self.docket.waiting() if who.concerned_by(kept.approval)]
        bindings = [kept.approval.binding for kept in waiting[:MOST_LISTED]]
        found = await asyncio.gather(*map(self.docket.whole, bindings))
        told = [
            approvals.told(kept.approval, LISTED_ARGUMENTS)
            for kept in found
            if kept is not None and kept.approval.state is State.PENDING
        ]
        return ApprovalsReply(approvals=tuple(told), more=len(waiting) > MOST_LISTED)

    async def decide(
        self, who: Approver, approval_id: str, note: str, *, approve: bool
    ) -> ApprovalsReply:
        """Approve or reject what waits.

        Raises:
            UnknownApprovalError: nothing waits under this id, or no longer.
            ForbiddenError: nobody decides about their own calls.

        """
        if len(note) > LONGEST_NOTE:
            raise InvalidError(f"A note may have {LONGEST_NOTE} characters; say it shorter.")
        if self.events.full:
            raise BusDownError(
                "Events can be kept nowhere (the spool is full): nothing may change."
            )
        for _ in range(ATTEMPTS):
            kept = await self._found(who, approval_id)
            approval = kept.approval
            if approval.state is not State.PENDING or not approval.stands(time()):
                raise _no_longer(approval)
            if who.asked_it(approval):
                raise ForbiddenError("Nobody decides about their own calls; ask another approver.")
            decided = (
                approvals.granted(approval, who.name, note, time() + self.granted_seconds)
                if approve
                else approvals.rejected(approval, who.name, note, approval.ends)
            )
            if await self.docket.put(decided, kept):
                self.events.publish(event_of(decided, time()))
                return ApprovalsReply(approvals=(approvals.told(decided, 0),))
        raise BusDownError("This approval is being changed by others all the time; retry.")

    async def _found(self, who: Approver, approval_id: str) -> Kept:
        known = await self.docket.named(approval_id, HEARD_SECONDS)
        kept = await self.docket.whole(known.approval.binding) if known is not None else None
        if kept is None or kept.approval.id != approval_id or not who.concerned_by(kept.approval):
            raise UnknownApprovalError(
                "Nothing waits under this id: it is unknown, or its time is long over. "
                "'toolbus approvals' lists what waits."
            )
        return kept


def _one(kept: Kept) -> ApprovalsReply:
    told: ApprovalState = approvals.told(kept.approval, LARGEST_ARGUMENTS)
    return ApprovalsReply(approvals=(told,))


def _no_longer(approval: Approval) -> UnknownApprovalError:
    shown = approval.stands(time()) or approval.state is State.WITHDRAWN
    state = approval.state if shown else State.EXPIRED
    by = f" by {approval.by}" if approval.by and state is not State.EXPIRED else ""
    return UnknownApprovalError(f"This approval no longer waits: it is {state.value}{by}.")
