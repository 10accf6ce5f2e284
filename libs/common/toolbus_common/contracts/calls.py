"""Messages of a call: the request from ingress to policy, and the admitted call to executor."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message, Plain

TOOLS_CALL = "tools/call"
FOLLOW = "tasks/follow"  # Toolbus' own method: subscribe to the progress of a task
DEFERRED = "toolbus.deferred."  # prefix of the id of a task that policy stores
NOTHING = "{}"
IDEMPOTENCY = "dev.toolbus/idempotency-key"  # in the `_meta` of a call: execute it at most once
# In the `_meta` of a reply: the JSON-RPC error with which the client answered a server's request.
ERROR = "dev.toolbus/error"
REPLAYED = "dev.toolbus/replayed"  # in the `_meta` of a result: it is the result of an earlier call
# In the `_meta` of a handshake or discovery: an upstream server's own data, passed on by a gateway.
THROUGH = "dev.toolbus/through"
# Extensions of MCP whose messages are routed back through both ingress and executor.
ROUTED_EXTENSIONS = ("io.modelcontextprotocol/ui", "io.modelcontextprotocol/tasks")


class ProtocolFamily(StrEnum):
    """Protocol family of a peer: with a handshake (legacy), or stateless (MCP 2026-07-28)."""

    LEGACY = "legacy"
    MODERN = "modern"


class OutcomeClaim(Plain):
    """The claim of a call on its entry in the bucket tb_outcomes, written by policy at admission.

    The service that ends the call overwrites `revision` with the outcome, encrypted with `seal`, a
    key for this entry only. If `seal` is empty, it writes nothing. `digest` is the digest of the
    arguments.
    """

    name: str
    revision: int
    digest: str
    seal: str = Field(default="", repr=False)


class Identified(Plain):
    """The caller's identity for a server that is configured to receive it.

    These fields complement the key, user and customer of the call. `actors` are the machines that
    act in the user's name (RFC 8693), the nearest first.
    """

    team: str = ""
    actors: tuple[str, ...] = ()


class CallRequested(Plain):
    """A client requests something of a server. Sent by ingress and codemode, consumed by policy.

    `method` is the MCP method. `tool` is its target: the name of a tool or prompt, or a URI, as the
    server knows it. `arguments` is raw JSON: the arguments of a tool or prompt, else the request's
    params without `_meta`. `capabilities` is the client's declared capabilities as raw JSON.
    `extra` is the other params (`inputResponses`, `requestState`, `task`, foreign members of
    `_meta`) as one raw JSON object, or empty. `restriction` holds tuples of patterns: at least one
    pattern of each tuple must match the call, in addition to the key's grants. `run` names the
    agent run: the client's trace, else its session, else empty. `idempotency_key` is the caller's
    key for this call: calls with the same key execute once; empty for none. `max_charge` is the
    maximum charge of the call in micro-dollars, in addition to its budgets; None for no limit.
    `terms` is raw JSON for the built-in server only (`toolbus_common.mcp.code_mode_options`).
    `tracestate` and `baggage` are the caller's trace headers. `session` names the client's session;
    empty for none. `suggested_by` is the id of the model request whose response suggested this
    call; empty for none. The sender has verified that the request is of the same principal. `flow`
    is set for the calls of a program or of a run of agent mode: a `FlowInputs` with the sealed
    `CallAdmitted.flow` of the call that started it. Only codemode receives that field.

    `log_level` is the lowest level of server log messages that the caller accepts. If it is empty,
    `default_logs` says whether the caller accepts the messages that the server sends unrequested.
    `caller_family` is the protocol family of the client behind a program, where it may differ from
    `family`, the form of the result.

    `key_digest` is SHA-256 of the key's secret in hex. The configuration stores SHA-256 of this
    digest: the bus never carries the secret, and a reader of the store cannot compute the digest.
    `deadline` is in seconds since the epoch. `reply_to` is the subject of the reply messages.
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
    restriction: tuple[tuple[str, ...], ...] = ()
    run: str = ""
    idempotency_key: str = Field(default="", repr=False)
    max_charge: int | None = None
    terms: str = ""
    tracestate: str = ""
    baggage: str = Field(default="", repr=False)
    session: str = ""
    suggested_by: str = ""
    flow: str = Field(default="", repr=False)
    arguments: bytes = Field(default=b"{}", exclude=True, repr=False)

    @property
    def subject(self) -> str:
        """Return the subject this call is published on."""
        return f"{self.SUBJECT}.{self.server}"


class CallAdmitted(Plain):
    """An authorized, paid and recorded call. Sent by policy only, consumed by executor.

    `charge` is the reserved price in micro-dollars; `reserved` is true if the ledger has a
    reservation for this call, which its outcome must settle. `price` is set when the charge depends
    on the result: micro-dollars per call, per kilobyte and per token; `charge` is its maximum.
    `key_digest`, `restriction` and `terms` are those of the request, and set only for the built-in
    server, whose programs make further calls for the same principal. `result_content` says how much
    of the result is recorded. `user` is the caller's user: some servers are called with that
    person's token. `claim` is set for a call with an idempotency key: its outcome is stored before
    the reply is sent. `identity` is set if the server receives the caller's identity.
    `principal_id` identifies the principal whose state at the server the call may use
    (`toolbus_common.access.session_owner`); `session` names the client's session. `checked` names
    the arguments that must match the tool's schema because rules read them; None means all. `cache`
    is a `CacheTerms` if the response of a model may be cached; else empty. `guards` are the names
    of the guards that executor must apply: to the result of the call, or to the response of the
    model. `run` identifies the run whose placeholders the arguments may contain; empty if no guard
    of the call can restore values. `flow` is set for the built-in server only, if information flow
    is controlled: what the run had read, sealed so that only policy can read or write it.
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
    restriction: tuple[tuple[str, ...], ...] = ()
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
    cache: str = ""
    guards: tuple[str, ...] = ()
    run: str = ""
    flow: str = Field(default="", repr=False)
    arguments: bytes = Field(default=b"{}", exclude=True, repr=False)

    @property
    def subject(self) -> str:
        """Return the subject this call is published on."""
        return f"{self.SUBJECT}.{self.server}"

    @property
    def caller_is_legacy(self) -> bool:
        """Return whether the client behind the call uses a revision with a handshake."""
        return (self.caller_family or self.family) is ProtocolFamily.LEGACY


class CallCancelled(Message):
    """The client disconnected or cancelled the call.

    Sent by ingress and executor to every policy, executor and codemode replica.
    """

    SUBJECT: ClassVar[str] = "tb.cancel"

    call_id: str

    @property
    def subject(self) -> str:
        """Return the subject this message is published on."""
        return f"{self.SUBJECT}.{self.call_id}"
