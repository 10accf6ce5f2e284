"""The call lane: one tool call as ingress asks for it, and as policy hands it on."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.message import Message


class Era(StrEnum):
    """The protocol era a peer speaks: with a handshake, or stateless (MCP 2026-07-28)."""

    LEGACY = "legacy"
    MODERN = "modern"


class CallRequested(Message):
    """An agent asks for a tool. Said by ingress and codemode, heard by policy.

    `proof` is SHA-256 of the key's secret in hex: the store keeps SHA-256 of the proof, so the
    bus never carries the secret and a reader of the store cannot make a proof.
    `deadline` is seconds since the epoch. `reply_to` is the subject the answer's frames go to.
    """

    SUBJECT: ClassVar[str] = "tb.call"
    BODY: ClassVar[str | None] = "arguments"

    call_id: str
    reply_to: str
    server: str
    tool: str
    proof: str = Field(repr=False)
    era: Era
    deadline: float
    traceparent: str
    progress: bool = False
    parent_id: str = ""
    arguments: bytes = Field(default=b"{}", exclude=True, repr=False)

    @property
    def subject(self) -> str:
        """Where this call is said."""
        return f"{self.SUBJECT}.{self.server}"


class CallAdmitted(Message):
    """The same call, allowed, paid for and recorded. Said by policy only, heard by executor.

    `charge` is the reserved price in micro-dollars; `reserved` says whether the ledger holds
    anything for this call, so that its outcome must be settled.
    """

    SUBJECT: ClassVar[str] = "tb.run"
    BODY: ClassVar[str | None] = "arguments"

    call_id: str
    reply_to: str
    server: str
    tool: str
    scope: str
    key: str
    era: Era
    deadline: float
    traceparent: str
    progress: bool = False
    parent_id: str = ""
    charge: int = 0
    reserved: bool = False
    arguments: bytes = Field(default=b"{}", exclude=True, repr=False)

    @property
    def subject(self) -> str:
        """Where this call is said."""
        return f"{self.SUBJECT}.{self.server}"
