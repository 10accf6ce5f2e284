"""What became of a call with an idempotency key: an entry of the bucket tb_outcomes."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.calls import ProtocolFamily


class Stage(StrEnum):
    """How far a call with an idempotency key has come."""

    CLAIMED = "claimed"  # it may be under way; past its deadline nobody knows
    ENDED = "ended"
    TOO_LARGE = "too_large"  # ended, in more than is kept
    FREE = "free"  # nothing was sent, or it ended with a question: the key may be used again


class StoredOutcome(Message):
    """Claimed by policy before a call is made, written over by whoever ends it.

    `digest` is that of the arguments; `deadline`, in seconds since the epoch, is that of the call.
    `frame` is what its caller was told, in the form of its `family`; empty unless the call ended.
    """

    BODY: ClassVar[str | None] = "frame"

    call_id: str
    digest: str
    deadline: float
    family: ProtocolFamily
    stage: Stage = Stage.CLAIMED
    frame: bytes = Field(default=b"", exclude=True, repr=False)
