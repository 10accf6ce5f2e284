"""Facts: what happened, in the past tense, kept in the stream FACTS.

A message on `tb.fact.<name>.<scope>` is one or more facts of that name and scope, one JSON
document a line. `producer` and `seq` are added by the writer: each process numbers its facts
without gaps, so a loss anywhere later is a visible hole.
"""

from typing import Any, ClassVar

from pydantic import Field

from toolbus_common.contracts.fact import CallFact, Fact
from toolbus_common.contracts.runs import RunCompleted, RunFailed, RunStarted
from toolbus_common.contracts.serverfacts import (
    BreakerClosed,
    BreakerOpened,
    ServerConnected,
    ServerDrained,
    ServerFact,
    ServerFaulted,
    ServerLost,
    ServerReset,
    ServerUndrained,
)


class Decided(CallFact):
    """What policy decided about a call, and what rules could read of it.

    `charge` is the price in micro-dollars. `arguments` are the call's as JSON, only where its key
    is declared with `content: full`; too long, they are cut and end in `…`.
    """

    team: str = ""
    user: str = ""
    environment: str = ""
    era: str = ""
    charge: int = 0
    arguments: str = ""


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

    rule: str = ""
    code: str
    reason: str


class Outcome(CallFact):
    """The end of an allowed call. `charge` is what it cost, `latency_us` the time upstream."""

    charge: int = 0
    reserved: bool = False
    latency_us: int = 0


class CallCompleted(Outcome):
    """The upstream answered; `is_error` when the tool itself reported an error.

    `ending` is `complete`, `input_required` (the call goes on with the caller's answer, and costs
    nothing yet) or `task` (the server goes on by itself). `cached` says that it was not asked: an
    earlier answer was told again. `result_bytes` counts what was kept instead of told, too.
    """

    NAME: ClassVar[str] = "call.completed"

    ending: str = "complete"
    is_error: bool = False
    result_bytes: int = 0
    cached: bool = False


class CallFailed(Outcome):
    """No answer. `sent` is False only when provably nothing reached the upstream."""

    NAME: ClassVar[str] = "call.failed"

    code: str
    reason: str
    sent: bool


class CallReplayed(CallFact):
    """A call with a known idempotency key was answered with the outcome of the call `first`.

    It reached no server and costs nothing. `code` is the failure's, where that was the outcome.
    """

    NAME: ClassVar[str] = "call.replayed"

    first: str
    code: str = ""


class ContextSpent(CallFact):
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


class ApprovalFact(CallFact):
    """What every fact about an approval has. `binding` is what it holds for and nothing else.

    `call_id` is the call that asked, and in `approval.used` the call that was let through.
    """

    approval: str
    binding: str = ""
    by: str = ""
    reason: str = ""


class ApprovalAsked(ApprovalFact):
    """A call waits for a person until `expires`; `cause` is the level or rule that wants that.

    `rule` is the rule alone. `arguments` is raw JSON, and empty unless the key's calls are
    recorded in full. With `charge` and the others it is what rules could read of the call.
    """

    NAME: ClassVar[str] = "approval.asked"

    cause: str
    expires: float
    rule: str = ""
    team: str = ""
    user: str = ""
    environment: str = ""
    era: str = ""
    charge: int = 0
    arguments_digest: str = ""
    arguments: str = Field(default="", repr=False)


class ApprovalGranted(ApprovalFact):
    """`by` approved: the call may be made once, until `expires`."""

    NAME: ClassVar[str] = "approval.granted"

    expires: float


class ApprovalRejected(ApprovalFact):
    """`by` rejected the call for the `reason` given."""

    NAME: ClassVar[str] = "approval.rejected"


class ApprovalExpired(ApprovalFact):
    """Nobody decided, or nobody made the approved call, in time."""

    NAME: ClassVar[str] = "approval.expired"


class ApprovalUsed(ApprovalFact):
    """The approved call goes on: this approval lets no other through."""

    NAME: ClassVar[str] = "approval.used"


class ApprovalWithdrawn(ApprovalFact):
    """The caller took its call back before it was made."""

    NAME: ClassVar[str] = "approval.withdrawn"


class ContextMeasured(ServerFact):
    """The tokens of a server's definitions, by tool: said when first counted, and when changed."""

    NAME: ClassVar[str] = "context.measured"

    tools: dict[str, int] = Field(default_factory=dict)
    counted_by: str = ""


class DefinitionFact(ServerFact):
    """What every fact about a definition has; `kind` is tools or prompts, `tool` its name.

    Digests are the canonical SHA-256 in hex; `approved_digest` is what was approved before.
    """

    kind: str
    tool: str
    definition_digest: str
    approved_digest: str = ""
    by: str = ""


class DefinitionPinned(DefinitionFact):
    """Seen with its server's first listing, and approved by that."""

    NAME: ClassVar[str] = "definition.pinned"


class DefinitionChanged(DefinitionFact):
    """New or not as it was approved: it is held back."""

    NAME: ClassVar[str] = "definition.changed"


class DefinitionApproved(DefinitionFact):
    """Somebody approved it as it is."""

    NAME: ClassVar[str] = "definition.approved"


class DefinitionRejected(DefinitionFact):
    """Somebody refused it as it is."""

    NAME: ClassVar[str] = "definition.rejected"


class KeyCreated(Fact):
    """A key exists; its secret is known to its holder alone."""

    NAME: ClassVar[str] = "key.created"

    key: str
    by: str = ""


class KeyRevoked(Fact):
    """A key no longer opens anything."""

    NAME: ClassVar[str] = "key.revoked"

    key: str
    by: str = ""


class ConfigApplied(Fact):
    """A declared configuration took effect; `revision` is its number in the bucket."""

    NAME: ClassVar[str] = "config.applied"

    revision: int
    by: str = ""
    changes: dict[str, Any] = Field(default_factory=dict)


class ConfigChanged(Fact):
    """One entry of what is declared became another: `before` and `after` are JSON, empty for none.

    Credentials are struck out; of a key's hash there is the beginning of its digest. `revision` is
    the declaration's, and 0 for what is kept beside it (keys made one by one).
    """

    NAME: ClassVar[str] = "config.changed"

    kind: str
    name: str
    by: str = ""
    revision: int = 0
    before: str = ""
    after: str = ""


class LedgerOpened(Fact):
    """A customer's counters began: at first use, rebuilt from the facts, or accepted incomplete.

    What was spent before `since` (seconds since the epoch) does not concern them.
    """

    NAME: ClassVar[str] = "ledger.opened"

    epoch: str
    how: str
    since: float
    by: str = ""


FACTS: dict[str, type[Fact]] = {
    fact.NAME: fact
    for fact in (
        CallAllowed,
        CallDenied,
        CallCompleted,
        CallFailed,
        CallReplayed,
        ContextSpent,
        ContextMeasured,
        RunStarted,
        RunCompleted,
        RunFailed,
        ApprovalAsked,
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
        KeyCreated,
        KeyRevoked,
        ConfigApplied,
        ConfigChanged,
        LedgerOpened,
    )
}
