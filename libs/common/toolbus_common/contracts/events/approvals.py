"""Events about approvals: requested, decided, used, expired or withdrawn."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.events.base import CallEvent


class ApprovalEvent(CallEvent):
    """Fields of every event about an approval.

    `approval` is its id, `binding` the digest of the call it is valid for. `call_id` is the call
    that requested it, and in `approval.used` the call that it allowed. `by` is the operator who
    decided, and `reason` the text given with the decision.
    """

    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"
    CONTENT: ClassVar[tuple[str, ...]] = ("reason",)

    approval: str
    binding: str = ""
    by: str = ""
    reason: str = ""


class ApprovalRequested(ApprovalEvent):
    """A call waits for a person's approval until `expires` (seconds since the epoch).

    Published by policy. `cause` is the level or rule that requires approval, `rule` the rule alone.
    `arguments` is raw JSON, and empty unless the key's calls are recorded in full.
    `arguments_digest` is SHA-256 of the arguments in hex. `charge` is the price in micro-dollars;
    with `team`, `user`, `environment` and `family` it is what rules could read of the call.
    """

    NAME: ClassVar[str] = "approval.requested"
    PERSON: ClassVar[str] = "user"
    KIND: ClassVar[str] = "user"
    MENTIONS: ClassVar[tuple[str, ...]] = ("cause",)
    CONTENT: ClassVar[tuple[str, ...]] = ("reason", "arguments")

    cause: str
    expires: float
    rule: str = ""
    team: str = ""
    user: str = ""
    environment: str = ""
    family: str = ""
    charge: int = 0
    arguments_digest: str = ""
    arguments: str = Field(default="", repr=False)


class ApprovalGranted(ApprovalEvent):
    """An operator approved the call: it may be made once, until `expires`.

    `expires` is in seconds since the epoch; `by` is the operator. Published by policy.
    """

    NAME: ClassVar[str] = "approval.granted"

    expires: float


class ApprovalRejected(ApprovalEvent):
    """An operator rejected the call; `reason` is the operator's text. Published by policy."""

    NAME: ClassVar[str] = "approval.rejected"


class ApprovalExpired(ApprovalEvent):
    """The approval expired before a decision or before its call was made. Published by policy."""

    NAME: ClassVar[str] = "approval.expired"


class ApprovalUsed(ApprovalEvent):
    """The approved call is executed; the approval is not valid for another. Published by policy."""

    NAME: ClassVar[str] = "approval.used"


class ApprovalWithdrawn(ApprovalEvent):
    """The caller cancelled its call before it was made. Published by policy."""

    NAME: ClassVar[str] = "approval.withdrawn"
