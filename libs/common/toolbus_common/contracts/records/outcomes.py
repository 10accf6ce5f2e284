"""Outcomes of calls with an idempotency key: entries of the bucket tb_outcomes."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.calls import ProtocolFamily


class Stage(StrEnum):
    """Stage of a call with an idempotency key."""

    CLAIMED = "claimed"  # the call can be running; after its deadline the outcome is unknown
    ENDED = "ended"
    TOO_LARGE = "too_large"  # ended, with an outcome too large to store
    FREE = "free"  # the call was not sent or needs input: the key can be used again


class StoredOutcome(Message):
    """The outcome of a call. Policy writes a claim, which the service that ends the call replaces.

    `digest` is the digest of the arguments. `deadline` is the deadline of the call, in seconds
    since the epoch. `reply` is the final reply in the form of `family`. It is empty until the call
    has ended.
    """

    BODY: ClassVar[str | None] = "reply"

    call_id: str
    digest: str
    deadline: float
    family: ProtocolFamily
    stage: Stage = Stage.CLAIMED
    reply: bytes = Field(default=b"", exclude=True, repr=False)
