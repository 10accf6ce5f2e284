"""Events about approvals: asked for, decided about, used or over."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.events.base import CallEvent


class ApprovalEvent(CallEvent):
    """What every event about an approval has. `binding` is what it holds for and nothing else.

    `call_id` is the call that asked, and in `approval.used` the call that was let through.
    """

    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"
    CONTENT: ClassVar[tuple[str, ...]] = ("reason",)

    approval: str
    binding: str = ""
    by: str = ""
    reason: str = ""


class ApprovalRequested(ApprovalEvent):
    """A call waits for a person until `expires`; `cause` is the level or rule that wants that.

    `rule` is the rule alone. `arguments` is raw JSON, and empty unless the key's calls are
    recorded in full. With `charge` and the others it is what rules could read of the call.
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
    """`by` approved: the call may be made once, until `expires`."""

    NAME: ClassVar[str] = "approval.granted"

    expires: float


class ApprovalRejected(ApprovalEvent):
    """`by` rejected the call for the `reason` given."""

    NAME: ClassVar[str] = "approval.rejected"


class ApprovalExpired(ApprovalEvent):
    """Nobody decided, or nobody made the approved call, in time."""

    NAME: ClassVar[str] = "approval.expired"


class ApprovalUsed(ApprovalEvent):
    """The approved call goes on: this approval lets no other through."""

    NAME: ClassVar[str] = "approval.used"


class ApprovalWithdrawn(ApprovalEvent):
    """The caller took its call back before it was made."""

    NAME: ClassVar[str] = "approval.withdrawn"
