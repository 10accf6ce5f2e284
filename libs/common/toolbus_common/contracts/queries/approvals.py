"""Queries about calls that wait for approval."""

from typing import ClassVar, Literal

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class ApprovalsQuery(Query):
    """List the pending approvals, or return the approval `id` in full.

    Operators send this query to policy.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.approvals"

    id: str = ""


class ApproveRequest(Query):
    """Approve a call once, as the operator `by`. Operators send this query to policy."""

    SUBJECT: ClassVar[str] = "tb.query.policy.approve"

    id: str
    by: str
    note: str = ""


class RejectRequest(Query):
    """Reject a call. The caller receives `note` as the reason.

    Operators send this query to policy.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.reject"

    id: str
    by: str
    note: str = ""


class ApproverRequest(Query):
    """Show, approve or reject calls with a key that has the right to approve.

    Ingress sends this query to policy. Policy resolves `key_digest` itself, so ingress cannot
    assert an identity. `action` is the requested operation.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.approver"

    key_digest: str = Field(repr=False)
    action: Literal["show", "approve", "reject"] = "show"
    id: str = ""
    note: str = ""


class ApprovalState(Message):
    """One approval. Times are in seconds since the epoch.

    `arguments` is raw JSON; `cut` is true if it is truncated. It is empty once the approval has
    ended. `cause` is the level or rule that requires approval. `ends` is the time at which the
    approval expires. `why` is the reason, and `chain` are the earlier calls that are part of it, in
    their order.
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
    why: str = ""
    chain: tuple[str, ...] = ()


class ApprovalsReply(Message):
    """The reply to all queries about approvals.

    `more` is true if there are further pending approvals.
    """

    approvals: tuple[ApprovalState, ...] = ()
    more: bool = False
