"""Events of the stream EVENTS: what happened, in the past tense.

A message on `tb.event.<name>.<customer>` has one or more events of that name and customer, one JSON
document per line. The publisher adds `producer` and `seq`: each process numbers its events without
gaps, so that a loss in transit is detected.
"""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.events.approvals import (
    ApprovalExpired,
    ApprovalGranted,
    ApprovalRejected,
    ApprovalRequested,
    ApprovalUsed,
    ApprovalWithdrawn,
)
from toolbus_common.contracts.events.base import CallEvent, Event
from toolbus_common.contracts.events.config import (
    ConfigApplied,
    ConfigChanged,
    KeyCreated,
    KeyRevoked,
)
from toolbus_common.contracts.events.identity import (
    AccessRejected,
    GrantCreated,
    GrantEnded,
    SignInDenied,
)
from toolbus_common.contracts.events.programs import RunCompleted, RunFailed, RunStarted
from toolbus_common.contracts.events.retention import (
    EventsExpired,
    HoldLifted,
    HoldPlaced,
    PersonErased,
    WitnessContradicted,
)
from toolbus_common.contracts.events.servers import (
    BreakerClosed,
    BreakerOpened,
    ConnectionCreated,
    ConnectionEnded,
    ServerConnected,
    ServerDrained,
    ServerEvent,
    ServerFaulted,
    ServerLost,
    ServerReset,
    ServerUndrained,
)


class Decided(CallEvent):
    """Fields of every decision of policy about a call, as far as rules could read them.

    `actors` are the machines that act in the user's name (RFC 8693), the nearest first.
    `charge` is the price in micro-dollars. `arguments` are the arguments of the call as JSON, if
    `content` is `full`, or with secrets removed if it is `redacted`. Long arguments are truncated
    and end in `…`.
    """

    PERSON: ClassVar[str] = "user"
    CONTENT: ClassVar[tuple[str, ...]] = ("arguments",)

    team: str = ""
    user: str = ""
    environment: str = ""
    family: str = ""
    charge: int = 0
    arguments: str = ""
    actors: tuple[str, ...] = ()


class CallAllowed(Decided):
    """Policy allowed the call. The event is durable before the call is sent to executor.

    `reserved` says whether the ledger has a reservation for it. `arguments_digest` is SHA-256 in
    hex of the arguments as they are sent on, `arguments_bytes` their size; `deadline` is in seconds
    since the epoch. `shadow` names the shadow rules that would have denied the call or required
    approval; `name:error` is a shadow rule that failed to evaluate. `policy_version` is the
    revision of the configuration. `approval` is the id of the approval that allowed the call, if
    it needed one. `definition_digest` is that of the tool or prompt as clients see it.
    """

    NAME: ClassVar[str] = "call.allowed"

    reserved: bool = False
    shadow: tuple[str, ...] = ()
    arguments_digest: str = ""
    arguments_bytes: int = 0
    deadline: float = 0.0
    policy_version: int = 0
    approval: str = ""
    definition_digest: str = ""


class CallDenied(Decided):
    """Policy denied the call; `code` and `reason` are those of the error that the caller received.

    `rule` names the rule that denied it.
    """

    NAME: ClassVar[str] = "call.denied"
    MENTIONS: ClassVar[tuple[str, ...]] = ("reason",)

    rule: str = ""
    code: str
    reason: str


class Outcome(CallEvent):
    """Fields of every outcome of an allowed call.

    `charge` is the cost in micro-dollars, `reserved` whether the ledger had a reservation,
    `latency_us` the time upstream in microseconds. `misfit` names the arguments that did not match
    the tool's schema, by the names in the schema.
    """

    charge: int = 0
    reserved: bool = False
    latency_us: int = 0
    misfit: str = ""


class CallCompleted(Outcome):
    """The upstream replied; `is_error` says that the tool itself reported an error.

    Published by executor. `result_type` is `complete`, `input_required` (the call continues with
    the caller's input, and costs nothing yet) or `task` (the server continues in a task). `cached`
    says that the result came from the response cache and the server was not called. `result_bytes`
    is the size of the result with its stored large parts. `sent_bytes` is the size of the result as
    the caller received it, `whole_bytes` as the server sent it, before a selection. `result_digest`
    is SHA-256 in hex of the result that the caller received. `result` is its text if
    `result_content` requires it, truncated like arguments; then `user` is the caller's user.
    """

    NAME: ClassVar[str] = "call.completed"
    PERSON: ClassVar[str] = "user"
    CONTENT: ClassVar[tuple[str, ...]] = ("result",)

    result_type: str = "complete"
    is_error: bool = False
    result_bytes: int = 0
    cached: bool = False
    sent_bytes: int = 0
    whole_bytes: int = 0
    result_digest: str = ""
    user: str = ""
    result: str = Field(default="", repr=False)


class CallFailed(Outcome):
    """The call has no result. `sent` is False only if provably nothing reached the upstream.

    Published by executor, and by policy for a call whose outcome is unknown. `code` and `reason`
    are those of the error that the caller received.
    """

    NAME: ClassVar[str] = "call.failed"

    code: str
    reason: str
    sent: bool


class CallExtended(CallEvent):
    """The server reported progress: the deadline is now `deadline`, in seconds since the epoch.

    Published by executor, at most once in half the server's `timeout`. `has_reservation` says
    whether the ledger has a reservation for the call.
    """

    NAME: ClassVar[str] = "call.extended"

    deadline: float
    has_reservation: bool = False


class CallReplayed(CallEvent):
    """A call with a known idempotency key received the outcome of the call `first`.

    Published by policy. The call reached no server and costs nothing. `code` is the error code if
    that outcome is a failure.
    """

    NAME: ClassVar[str] = "call.replayed"

    first: str
    code: str = ""


class ContextSpent(CallEvent):
    """The context tokens that one call of code mode cost the model. Published by codemode.

    `classic` is the cost per request of the definitions of all tools the caller may use, by server;
    `own_tokens` is the cost of the definitions of code mode's tools instead. `request_tokens` are
    those of the call's arguments, `answer_tokens` of its result; `engine` is the language of the
    program. `counted_by` names the tokenizer's vocabulary, or `bytes/4` for an estimate.
    """

    NAME: ClassVar[str] = "context.spent"

    engine: str = ""
    classic: dict[str, int] = Field(default_factory=dict)
    own_tokens: int = 0
    request_tokens: int = 0
    answer_tokens: int = 0
    counted_by: str = ""


class ContextListed(Event):
    """The context bytes that the lists for one key cost in about a minute. Published by ingress.

    `lists` is the number of lists sent by `method`, `spent_bytes` their size. `classic_bytes` is
    the size that the definitions of all tools the key may use would have had in these lists,
    `whole_bytes` the size of those of all existing tools. `server` is set for the endpoint of one
    server; `mode` is how the key sees tools.
    """

    NAME: ClassVar[str] = "context.listed"

    key: str
    server: str = ""
    method: str
    mode: str = ""
    lists: int
    spent_bytes: int
    classic_bytes: int
    whole_bytes: int


class ContextMeasured(ServerEvent):
    """The tokens of a server's definitions, by tool; published by codemode at each change.

    `counted_by` names the tokenizer's vocabulary, or `bytes/4` for an estimate.
    """

    NAME: ClassVar[str] = "context.measured"

    tools: dict[str, int] = Field(default_factory=dict)
    counted_by: str = ""


class DefinitionEvent(ServerEvent):
    """Fields of every event about a definition.

    `kind` is `tools` or `prompts`, `tool` the name of the tool or prompt. Digests are the canonical
    SHA-256 in hex; `approved_digest` is that of the definition approved before. `by` is the
    operator.
    """

    kind: str
    tool: str
    definition_digest: str
    approved_digest: str = ""
    by: str = ""


class DefinitionPinned(DefinitionEvent):
    """A definition was approved automatically, as part of its server's first listing."""

    NAME: ClassVar[str] = "definition.pinned"


class DefinitionChanged(DefinitionEvent):
    """A definition is new or differs from the approved one: it is quarantined."""

    NAME: ClassVar[str] = "definition.changed"


class DefinitionApproved(DefinitionEvent):
    """An operator approved the definition as it is."""

    NAME: ClassVar[str] = "definition.approved"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"


class DefinitionRejected(DefinitionEvent):
    """An operator rejected the definition as it is."""

    NAME: ClassVar[str] = "definition.rejected"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"


class LedgerOpened(Event):
    """A customer's counters were created: at first use, by a rebuild from events, or incomplete.

    Published by policy. `epoch` identifies the generation of the counters and `how` its origin.
    Charges before `since` (seconds since the epoch) are not counted. `by` is the operator who
    accepted incomplete counters.
    """

    NAME: ClassVar[str] = "ledger.opened"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    epoch: str
    how: str
    since: float
    by: str = ""


EVENTS: dict[str, type[Event]] = {
    event.NAME: event
    for event in (
        CallAllowed,
        CallDenied,
        CallCompleted,
        CallFailed,
        CallExtended,
        CallReplayed,
        ContextSpent,
        ContextListed,
        ContextMeasured,
        RunStarted,
        RunCompleted,
        RunFailed,
        ApprovalRequested,
        ApprovalGranted,
        ApprovalRejected,
        ApprovalExpired,
        ApprovalUsed,
        ApprovalWithdrawn,
        ServerConnected,
        ServerLost,
        ServerFaulted,
        ServerDrained,
        ServerUndrained,
        ServerReset,
        BreakerOpened,
        BreakerClosed,
        DefinitionPinned,
        DefinitionChanged,
        DefinitionApproved,
        DefinitionRejected,
        GrantCreated,
        GrantEnded,
        SignInDenied,
        AccessRejected,
        ConnectionCreated,
        ConnectionEnded,
        KeyCreated,
        KeyRevoked,
        ConfigApplied,
        ConfigChanged,
        LedgerOpened,
        PersonErased,
        HoldPlaced,
        HoldLifted,
        EventsExpired,
        WitnessContradicted,
    )
}
