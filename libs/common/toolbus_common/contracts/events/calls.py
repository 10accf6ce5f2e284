"""Events: what happened, in the past tense, kept in the stream EVENTS.

A message on `tb.event.<name>.<customer>` is one or more events of that name and customer, one JSON
document a line. `producer` and `seq` are added by the writer: each process numbers its events
without gaps, so a loss anywhere later is a visible hole.
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
    """What policy decided about a call, and what rules could read of it.

    `actors` are the machines that act in the user's name (RFC 8693), the nearest first.
    `charge` is the price in micro-dollars. `arguments` are the call's as JSON, only where
    `content` is `full`, or struck where it is `redacted`; too long, they are cut and end in `…`.
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
    """The intent: policy let the call through. Durable before anything is sent.

    `arguments_digest` is SHA-256 in hex of the arguments as they are sent on; `deadline` is
    seconds since the epoch. `shadow` names the rules that would have refused the call or asked
    a person, were they not shadows; `name:error` is one that could not be evaluated.
    `approval` is the approval that let it through, if it needed one.
    `definition_digest` is that of the tool or prompt as it is shown.
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
    """Policy refused the call; `code` and `reason` are what the caller was told.

    `rule` names the rule that did.
    """

    NAME: ClassVar[str] = "call.denied"
    MENTIONS: ClassVar[tuple[str, ...]] = ("reason",)

    rule: str = ""
    code: str
    reason: str


class Outcome(CallEvent):
    """The end of an allowed call. `charge` is what it cost, `latency_us` the time upstream.

    `misfit` names the arguments that did not fit the tool's schema, by the schema's own names.
    """

    charge: int = 0
    reserved: bool = False
    latency_us: int = 0
    misfit: str = ""


class CallCompleted(Outcome):
    """The upstream answered; `is_error` when the tool itself reported an error.

    `ending` is `complete`, `input_required` (the call goes on with the caller's answer, and costs
    nothing yet) or `task` (the server goes on by itself). `cached` says that it was not asked: an
    earlier answer was told again. `result_bytes` counts what was kept instead of told, too.
    `sent_bytes` is the size of the result as the caller got it, `whole_bytes` as the server
    answered, before a selection. `result_digest` is SHA-256 in hex of the result as it was told.
    `result` is its text where `result_content` says so, cut as arguments are, and `user` then whose
    call it was.
    """

    NAME: ClassVar[str] = "call.completed"
    PERSON: ClassVar[str] = "user"
    CONTENT: ClassVar[tuple[str, ...]] = ("result",)

    ending: str = "complete"
    is_error: bool = False
    result_bytes: int = 0
    cached: bool = False
    sent_bytes: int = 0
    whole_bytes: int = 0
    result_digest: str = ""
    user: str = ""
    result: str = Field(default="", repr=False)


class CallFailed(Outcome):
    """No answer. `sent` is False only when provably nothing reached the upstream."""

    NAME: ClassVar[str] = "call.failed"

    code: str
    reason: str
    sent: bool


class CallExtended(CallEvent):
    """The server reports progress: the call has until `deadline`, in seconds since the epoch.

    Published at most once in half the server's `timeout`. `held` says whether the ledger holds
    anything for the call.
    """

    NAME: ClassVar[str] = "call.extended"

    deadline: float
    held: bool = False


class CallReplayed(CallEvent):
    """A call with a known idempotency key was answered with the outcome of the call `first`.

    It reached no server and costs nothing. `code` is the failure's, where that was the outcome.
    """

    NAME: ClassVar[str] = "call.replayed"

    first: str
    code: str = ""


class ContextSpent(CallEvent):
    """What one call of code mode cost its model to read and write, in tokens.

    `classic` is what the definitions of all its caller may use would have cost a request, by
    server; `own_tokens` what the definitions of code mode's tools cost it instead.
    `request_tokens` are those of the call's arguments, `answer_tokens` of its answer; `engine` is
    the language of a program. `counted_by` names the vocabulary, or `bytes/4` for an estimate.
    """

    NAME: ClassVar[str] = "context.spent"

    engine: str = ""
    classic: dict[str, int] = Field(default_factory=dict)
    own_tokens: int = 0
    request_tokens: int = 0
    answer_tokens: int = 0
    counted_by: str = ""


class ContextListed(Event):
    """What the lists of one key cost its context in a minute or so, in bytes.

    `spent_bytes` were sent; `classic_bytes` are the definitions of all that the key may use, and
    `whole_bytes` of all there is, as often. `server` is set for the endpoint of one server, `mode`
    is how the key sees tools.
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
    """The tokens of a server's definitions, by tool: said when first counted, and when changed."""

    NAME: ClassVar[str] = "context.measured"

    tools: dict[str, int] = Field(default_factory=dict)
    counted_by: str = ""


class DefinitionEvent(ServerEvent):
    """What every event about a definition has; `kind` is tools or prompts, `tool` its name.

    Digests are the canonical SHA-256 in hex; `approved_digest` is what was approved before.
    """

    kind: str
    tool: str
    definition_digest: str
    approved_digest: str = ""
    by: str = ""


class DefinitionPinned(DefinitionEvent):
    """Seen with its server's first listing, and approved by that."""

    NAME: ClassVar[str] = "definition.pinned"


class DefinitionChanged(DefinitionEvent):
    """New or not as it was approved: it is held back."""

    NAME: ClassVar[str] = "definition.changed"


class DefinitionApproved(DefinitionEvent):
    """Somebody approved it as it is."""

    NAME: ClassVar[str] = "definition.approved"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"


class DefinitionRejected(DefinitionEvent):
    """Somebody refused it as it is."""

    NAME: ClassVar[str] = "definition.rejected"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"


class LedgerOpened(Event):
    """A customer's counters began: at first use, rebuilt from the events, or accepted incomplete.

    What was spent before `since` (seconds since the epoch) does not concern them.
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
