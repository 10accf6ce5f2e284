"""Questions about calls that wait for a person: what waits, and what was decided."""

from typing import ClassVar, Literal

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class ApprovalsQuery(Query):
    """What waits? Heard by policy, asked by operators; with an `id` that one, in full."""

    SUBJECT: ClassVar[str] = "tb.query.policy.approvals"

    id: str = ""


class ApproveRequest(Query):
    """Let the call through, once. Heard by policy, asked by operators."""

    SUBJECT: ClassVar[str] = "tb.query.policy.approve"

    id: str
    by: str
    note: str = ""


class RejectRequest(Query):
    """Refuse the call; `note` is the reason its caller is told. Asked by operators."""

    SUBJECT: ClassVar[str] = "tb.query.policy.reject"

    id: str
    by: str
    note: str = ""


class ApproverRequest(Query):
    """The same three for the holder of a key with the right to approve. Asked by ingress.

    Policy resolves `key_digest` itself: ingress can vouch for nobody.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.approver"

    key_digest: str = Field(repr=False)
    wish: Literal["show", "approve", "reject"] = "show"
    id: str = ""
    note: str = ""


class ApprovalState(Message):
    """One approval. Times are seconds since the epoch.

    `arguments` is raw JSON, cut where `cut` says so; it is empty once the approval has ended.
    `cause` is the level or rule that wants a person asked.
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
    """The answer to all of these; `more` when not all that wait are told."""

    approvals: tuple[ApprovalState, ...] = ()
    more: bool = False
