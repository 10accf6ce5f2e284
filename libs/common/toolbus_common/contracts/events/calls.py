"""Events of the stream EVENTS. The names of events are in the past tense.

A message on `tb.event.<name>.<customer>` contains one or more events of this name and customer, one
JSON document per line. The publisher adds `producer` and `seq`: each process numbers its events
without gaps, so a loss in transit can be detected.
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
from toolbus_common.contracts.events.guards import FlowReset, GuardFailed, MessageGuarded
from toolbus_common.contracts.events.identity import (
    AccessRejected,
    GrantCreated,
    GrantEnded,
    SignInDenied,
)
from toolbus_common.contracts.events.models import ModelCachePurged, ModelUsed
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
    """Fields of every decision of policy about a call.

    `actors` are the machines that act in the user's name (RFC 8693), the nearest first. `charge` is
    the price in micro-dollars. `arguments` are the arguments of the call as JSON. They are set only
    if `content` is `full`, or `redacted` (without secrets). Long arguments are truncated and end in
    `…`. `suggested_by` is the id of the model request whose response suggested the call; empty if
    the caller named none. `guards` are the checks of the arguments or of the prompt, as a JSON
    array of `GuardCheck`; empty if no guard applied. `flow` is what the run had read before the
    call, as a JSON `FlowRecord`; empty if the call has no labels that matter, or flow is off.
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
    suggested_by: str = ""
    guards: str = ""
    flow: str = ""


class CallAllowed(Decided):
    """Policy allowed the call. The event is durable before the call is sent to executor.

    `reserved` is true if the ledger contains a reservation for the call. `arguments_digest` is
    SHA-256 in hex of the arguments that executor receives, and `arguments_bytes` is their size.
    `deadline` is in seconds since the epoch. `shadow` contains the names of shadow rules that would
    have denied the call or required approval. A shadow rule that failed to evaluate is listed as
    `name:error`. `policy_version` is the revision of the configuration. `approval` is the id of the
    approval that allowed the call, if one was required. `definition_digest` is the digest of the
    tool or prompt as clients see it. `aliases` are the aliases that contained the requested model.
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
    aliases: tuple[str, ...] = ()


class CallDenied(Decided):
    """Policy denied the call. The caller received an error with `code` and `reason`.

    `rule` is the name of the rule that denied the call, if a rule did.
    """

    NAME: ClassVar[str] = "call.denied"
    MENTIONS: ClassVar[tuple[str, ...]] = ("reason",)

    rule: str = ""
    code: str
    reason: str


class Outcome(CallEvent):
    """Fields of every outcome of an allowed call.

    `charge` is the cost in micro-dollars. `reserved` is true if the ledger had a reservation.
    `latency_us` is the duration of the upstream call in microseconds. `misfit` contains the names
    of arguments that did not match the tool's schema. `guards` are the checks of the result or of
    the completion, in the form of `guards` in `call.allowed`.
    """

    charge: int = 0
    reserved: bool = False
    latency_us: int = 0
    misfit: str = ""
    guards: str = ""


class CallCompleted(Outcome):
    """The upstream server replied. `is_error` is true if the tool itself reported an error.

    Executor publishes this event. `result_type` is `complete`, `input_required` (the call costs
    nothing yet and continues with the caller's input) or `task` (the server continues in a task).
    `cached` is true if the result came from the response cache, without a call to the server.
    `result_bytes` is the size of the result with its stored large parts. `sent_bytes` is the size
    of the result that the caller received, and `whole_bytes` is the size that the server sent,
    before a selection. `result_digest` is SHA-256 in hex of the result that the caller received. If
    `result_content` requires it, `result` is the text of the result, truncated like arguments, and
    `user` is the caller's user.
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
    """The call has no result. `sent` is false only if certainly no byte reached the server.

    Executor publishes this event; policy publishes it for a call whose outcome is unknown. The
    caller received an error with `code` and `reason`.
    """

    NAME: ClassVar[str] = "call.failed"

    code: str
    reason: str
    sent: bool


class CallExtended(CallEvent):
    """The server reported progress. The new `deadline` is in seconds since the epoch.

    Executor publishes this event, at most once in half the server's `timeout`. `has_reservation` is
    true if the ledger contains a reservation for the call.
    """

    NAME: ClassVar[str] = "call.extended"

    deadline: float
    has_reservation: bool = False


class CallReplayed(CallEvent):
    """A call with a known idempotency key received the outcome of the call `first`.

    Policy publishes this event. The call reached no server and costs nothing. If the outcome is a
    failure, `code` is its error code. `guards` are the checks of the outcome before it was
    replayed, in the form of `guards` in `call.allowed`.
    """

    NAME: ClassVar[str] = "call.replayed"

    first: str
    code: str = ""
    guards: str = ""


class ContextSpent(CallEvent):
    """The context tokens that one call of code mode cost the model.

    Codemode publishes this event. `classic` is, by server, the cost per request of the definitions
    of all tools that the caller can use. `own_tokens` is the cost of the definitions of code mode's
    own tools. `request_tokens` is the cost of the call's arguments, and `answer_tokens` is the cost
    of its result. `engine` is the language of the program. `counted_by` is the name of the
    tokenizer's vocabulary, or `bytes/4` for an estimate.
    """

    NAME: ClassVar[str] = "context.spent"

    engine: str = ""
    classic: dict[str, int] = Field(default_factory=dict)
    own_tokens: int = 0
    request_tokens: int = 0
    answer_tokens: int = 0
    counted_by: str = ""


class ContextListed(Event):
    """The context bytes that lists for one key cost in about a minute.

    Ingress publishes this event. `lists` is the number of lists returned for `method`, and
    `spent_bytes` is their total size. `classic_bytes` is the size that these lists would have with
    the definitions of all tools that the key can use. `whole_bytes` is their size with the
    definitions of all existing tools. `server` is set for the endpoint of one server. `mode` is the
    way in which the key sees tools.
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
    """The number of tokens in a server's definitions, by tool.

    Codemode publishes this event at each change. `counted_by` is the name of the tokenizer's
    vocabulary, or `bytes/4` for an estimate.
    """

    NAME: ClassVar[str] = "context.measured"

    tools: dict[str, int] = Field(default_factory=dict)
    counted_by: str = ""


class DefinitionEvent(ServerEvent):
    """Fields of every event about a definition.

    `kind` is `tools`, `prompts`, `resources`, `templates` or `instructions`. `tool` is the name of
    the tool or prompt, or the URI of the resource. Digests are SHA-256 in hex of the
    canonical JSON. `approved_digest` is the digest of the definition that was approved before.
    `by` is the operator.
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
    """A definition is new, or differs from the approved definition. It is quarantined."""

    NAME: ClassVar[str] = "definition.changed"


class DefinitionFlagged(DefinitionEvent):
    """A definition contains what looks like instructions to a model, or hidden text.

    `rules` are the names of the rules that matched, separated by commas, and `score` is the highest
    score. `reason` is set if the definition is quarantined because of them. Executor publishes
    this event once for each version of a definition.
    """

    NAME: ClassVar[str] = "definition.flagged"

    rules: str
    score: float = 0.0


class DefinitionApproved(DefinitionEvent):
    """An operator approved the current definition."""

    NAME: ClassVar[str] = "definition.approved"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"


class DefinitionRejected(DefinitionEvent):
    """An operator rejected the current definition."""

    NAME: ClassVar[str] = "definition.rejected"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"


class LedgerOpened(Event):
    """New counters of a customer: at first use, after a rebuild from events, or incomplete.

    Policy publishes this event. `epoch` identifies the generation of the counters, and `how` is its
    origin. Charges before `since` (seconds since the epoch) are not counted. `by` is the operator
    who accepted incomplete counters.
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
        ModelUsed,
        ModelCachePurged,
        FlowReset,
        GuardFailed,
        MessageGuarded,
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
        DefinitionFlagged,
        DefinitionFlagged,
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
