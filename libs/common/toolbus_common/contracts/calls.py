"""The call lane: one request to a server as ingress asks for it, and as policy hands it on."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message, Plain

TOOLS_CALL = "tools/call"
FOLLOW = "tasks/follow"  # of ours, not MCP's: to hear how a task goes on
DEFERRED = "toolbus.deferred."  # begins the name of a task that policy keeps, until it ends
NOTHING = "{}"
IDEMPOTENCY = "dev.toolbus/idempotency-key"  # of a call's `_meta`: repeated, it is not made again
# Of an answer's `_meta`: the JSON-RPC error that the client answered a question with.
ERROR = "dev.toolbus/error"
REPLAYED = "dev.toolbus/replayed"  # of a result's `_meta`: it is that of an earlier call
# Of the `_meta` of a handshake or discovery: a server's own word of itself, told by a gateway.
THROUGH = "dev.toolbus/through"
# Extensions of MCP whose messages find their way back through ingress and executor alike.
ROUTED_EXTENSIONS = ("io.modelcontextprotocol/ui", "io.modelcontextprotocol/tasks")


class ProtocolFamily(StrEnum):
    """The protocol family a peer speaks: with a handshake, or stateless (MCP 2026-07-28)."""

    LEGACY = "legacy"
    MODERN = "modern"


class OutcomeClaim(Plain):
    """A call's entry in the bucket tb_outcomes, and what was written there when it was admitted.

    Whoever ends the call writes its outcome over that `revision`, sealed with `seal`, the key of
    this entry alone; without one nothing is written. `digest` is that of its arguments.
    """

    name: str
    revision: int
    digest: str
    seal: str = Field(default="", repr=False)


class Identified(Plain):
    """What a server is told of who calls, beside key, user and customer, if it is declared so.

    `actors` are those who act in the user's name, the nearest first.
    """

    team: str = ""
    actors: tuple[str, ...] = ()


class CallRequested(Plain):
    """An agent asks a server for something. Said by ingress and codemode, heard by policy.

    `method` is MCP's, and `tool` what it is about: a tool's or prompt's name, or a URI, as the
    server knows it. `arguments` is raw JSON: the arguments of a tool or prompt, else the request's
    params without `_meta`. `capabilities` is what the client declared, raw JSON; `extra` holds the
    params beside these (`inputResponses`, `requestState`, `task`, foreign members of `_meta`) as
    one raw JSON object, or is empty. `narrower` are patterns, each tuple of which must cover the
    call beside what the key is granted. `run` names the agent run the client says this belongs to:
    its trace, else its session; empty when it says neither. `idempotency_key` is the caller's
    name for this very call, so that it is made once however often it is asked for; or empty.
    `most` is what the call may be charged at most, in micro-dollars, whatever its levels allow.
    `terms` is raw JSON, and only for Toolbus' own server (`toolbus_common.mcp.code_mode_options`).
    `tracestate` and `baggage` are what the caller said beside its traceparent. `session` names the
    client's session; empty where it has none.

    `log_level` is the least level of the server's log messages the caller takes; where it is empty,
    `default_logs` says that the caller takes those the server sends unasked. `caller_family` is
    that of the client whose program makes the call, where it may differ from `family`, the result's
    form.

    `key_digest` is SHA-256 of the key's secret in hex: the store keeps SHA-256 of the proof, so the
    bus never carries the secret and a reader of the store cannot make a proof.
    `deadline` is seconds since the epoch. `reply_to` is the subject the answer's frames go to.
    """

    SUBJECT: ClassVar[str] = "tb.call"
    BODY: ClassVar[str | None] = "arguments"

    call_id: str
    reply_to: str
    server: str
    tool: str
    key_digest: str = Field(repr=False)
    family: ProtocolFamily
    deadline: float
    traceparent: str
    progress: bool = False
    parent_id: str = ""
    method: str = TOOLS_CALL
    capabilities: str = NOTHING
    log_level: str = ""
    default_logs: bool = False
    caller_family: ProtocolFamily | None = None
    extra: str = Field(default="", repr=False)
    narrower: tuple[tuple[str, ...], ...] = ()
    run: str = ""
    idempotency_key: str = Field(default="", repr=False)
    most: int | None = None
    terms: str = ""
    tracestate: str = ""
    baggage: str = Field(default="", repr=False)
    session: str = ""
    arguments: bytes = Field(default=b"{}", exclude=True, repr=False)

    @property
    def subject(self) -> str:
        """Where this call is said."""
        return f"{self.SUBJECT}.{self.server}"


class CallAdmitted(Plain):
    """The same request, allowed, paid for and recorded. Said by policy only, heard by executor.

    `charge` is the reserved price in micro-dollars; `reserved` says whether the ledger holds
    anything for this call, so that its outcome must be settled. `price` is there when the charge
    depends on the result: micro-dollars for the call, a kilobyte and a token; `charge` bounds it.
    `key_digest`, `narrower` and `terms` are those of the request, and only for Toolbus' own server,
    whose programs call on in the same name. `result_content` says how much of the result is
    recorded; `user` whose call it is: some servers are called with that person's token. `claim` is
    there when the call has an idempotency key: its outcome is kept before it is told. `identity`
    is there where the server is told who calls. `principal_id` identifies whose state at the server
    the call may touch (`toolbus_common.access.session_owner`), `session` the client's session.
    `checked` names the arguments that must fit the tool's schema, as rules read them; None means
    all.
    """

    SUBJECT: ClassVar[str] = "tb.run"
    BODY: ClassVar[str | None] = "arguments"

    call_id: str
    reply_to: str
    server: str
    tool: str
    customer: str
    key: str
    family: ProtocolFamily
    deadline: float
    traceparent: str
    progress: bool = False
    parent_id: str = ""
    method: str = TOOLS_CALL
    capabilities: str = NOTHING
    log_level: str = ""
    default_logs: bool = False
    caller_family: ProtocolFamily | None = None
    extra: str = Field(default="", repr=False)
    charge: int = 0
    reserved: bool = False
    price: tuple[float, ...] = ()
    key_digest: str = Field(default="", repr=False)
    narrower: tuple[tuple[str, ...], ...] = ()
    claim: OutcomeClaim | None = None
    terms: str = ""
    tracestate: str = ""
    baggage: str = Field(default="", repr=False)
    result_content: str = ""
    user: str = ""
    identity: Identified | None = None
    principal_id: str = ""
    session: str = ""
    checked: tuple[str, ...] | None = None
    arguments: bytes = Field(default=b"{}", exclude=True, repr=False)

    @property
    def subject(self) -> str:
        """Where this call is said."""
        return f"{self.SUBJECT}.{self.server}"

    @property
    def shakes_hands(self) -> bool:
        """Whether the client behind it speaks a revision with a handshake."""
        return (self.caller_family or self.family) is ProtocolFamily.LEGACY


class CallCancelled(Message):
    """Whoever asked is gone, or says the answer is no longer wanted. Heard by every executor."""

    SUBJECT: ClassVar[str] = "tb.cancel"

    call_id: str

    @property
    def subject(self) -> str:
        """Where this is said."""
        return f"{self.SUBJECT}.{self.call_id}"
