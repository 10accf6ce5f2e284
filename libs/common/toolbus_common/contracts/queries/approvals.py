"""Queries about calls that wait for approval."""

from typing import ClassVar, Literal

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class ApprovalsQuery(Query):
    """List the pending approvals, or with `id` return one approval in full.

    Sent by operators, answered by policy.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.approvals"

    id: str = ""


class ApproveRequest(Query):
    """Approve a call once, as the operator `by`. Sent by operators, answered by policy."""

    SUBJECT: ClassVar[str] = "tb.query.policy.approve"

    id: str
    by: str
    note: str = ""


class RejectRequest(Query):
    """Reject a call; `note` is the reason its caller receives.

    Sent by operators, answered by policy.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.reject"

    id: str
    by: str
    note: str = ""


class ApproverRequest(Query):
    """Show, approve or reject calls for the holder of a key with the right to approve.

    Sent by ingress, answered by policy. Policy resolves `key_digest` itself: ingress cannot assert
    an identity. `action` is the requested operation.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.approver"

    key_digest: str = Field(repr=False)
    action: Literal["show", "approve", "reject"] = "show"
    id: str = ""
    note: str = ""


class ApprovalState(Message):
    """One approval. Times are in seconds since the epoch.

    `arguments` is raw JSON, truncated if `cut`; it is empty once the approval has ended. `cause` is
    the level or rule that requires approval. `ends` is when the approval expires.
    """

    id: str
    state: str
    key: str
    server: str
    tool: str
    method: str
    cause: str
    requested_at: float
    ends: float
    arguments: str = Field(default="", repr=False)
    arguments_digest: str = ""
    cut: bool = False
    by: str = ""
    note: str = ""


class ApprovalsReply(Message):
    """The reply to all of these queries; `more` is true if there are further pending approvals."""

    approvals: tuple[ApprovalState, ...] = ()
    more: bool = False
