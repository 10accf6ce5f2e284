"""Events about approvals: requested, decided, used, expired or withdrawn."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.events.base import CallEvent


class ApprovalEvent(CallEvent):
    """Fields of every event about an approval.

    `approval` is the id of the approval. `binding` is the digest of the call that the approval is
    valid for. `call_id` is the call that requested the approval; in `approval.used` it is the call
    that used it. `by` is the operator who decided, and `reason` is the operator's text.
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

    Policy publishes this event. `cause` is the level or rule that requires approval; `rule` is set
    only for a rule. `arguments` is raw JSON. It is empty unless the calls of the key are recorded
    in full. `arguments_digest` is SHA-256 of the arguments in hex. `charge` is the price in
    micro-dollars. Rules could read `charge`, `team`, `user`, `environment` and `family`.
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
    """An operator approved the call. The call can be made once, until `expires`.

    Policy publishes this event. `expires` is in seconds since the epoch, and `by` is the operator.
    """

    NAME: ClassVar[str] = "approval.granted"

    expires: float


class ApprovalRejected(ApprovalEvent):
    """An operator rejected the call, for `reason`. Policy publishes this event."""

    NAME: ClassVar[str] = "approval.rejected"


class ApprovalExpired(ApprovalEvent):
    """The approval expired before a decision or before the approved call was made.

    Policy publishes this event.
    """

    NAME: ClassVar[str] = "approval.expired"


class ApprovalUsed(ApprovalEvent):
    """The approved call is executed. The approval is not valid for any other call.

    Policy publishes this event.
    """

    NAME: ClassVar[str] = "approval.used"


class ApprovalWithdrawn(ApprovalEvent):
    """The caller cancelled the call before it was made. Policy publishes this event."""

    NAME: ClassVar[str] = "approval.withdrawn"
