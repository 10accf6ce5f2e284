"""Models of the operations that show the state of the installation, and recorded events."""

from typing import Annotated, Any, Literal

from pydantic import Field

from toolbus_common.admin_api.models import AGO, LocatedProblem, ResponseModel, seconds_of
from toolbus_common.config import ConfigModel, Name, Rule
from toolbus_common.contracts import ServiceStatus


class AuditStatement(ConfigModel):
    """One read-only SELECT on the recorded events.

    `parameters` contains the values of the `{name:Type}` placeholders. Encrypted personal data is
    returned as plain text as long as its keys exist, unless `as_stored` is set.
    """

    sql: str = Field(min_length=1, max_length=65_536)
    parameters: dict[str, Annotated[str, Field(max_length=4096)]] = Field(
        default_factory=dict, max_length=100
    )
    limit: int = Field(default=1000, ge=1, le=10_000)
    as_stored: bool = False


class SavedStatement(ConfigModel):
    """The values of one saved query's parameters.

    A parameter without a value has its default. A time is a date, a time of day on a date, or a
    period before now such as `7d`. `contains` selects the rows whose column contains a text, in
    upper or lower case.
    """

    parameters: dict[str, Annotated[str, Field(max_length=4096)]] = Field(
        default_factory=dict, max_length=20
    )
    contains: dict[
        Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")],
        Annotated[str, Field(max_length=256)],
    ] = Field(default_factory=dict, max_length=20)
    limit: int = Field(default=1000, ge=1, le=10_000)


class EventSelection(ConfigModel):
    """The events of one page of an export, from `since` and before `until` (Unix seconds).

    `events` (patterns of names) and `customers` restrict the export. For every further page,
    `after` is `next` of the previous one.
    """

    format: Literal["jsonl", "ocsf", "parquet"] = "jsonl"
    since: float = Field(default=0.0, ge=0, le=4e9)
    until: float = Field(default=4e9, ge=0, le=4e9)
    events: tuple[Annotated[str, Field(pattern=r"^[a-z*?.]{1,64}$")], ...] = Field(
        default=(), max_length=100
    )
    customers: tuple[Name, ...] = Field(default=(), max_length=100)
    after: str = Field(default="", max_length=400)


class SavedParameter(ResponseModel):
    """A parameter of a saved query. `type` is ClickHouse's; without a default, it is required."""

    name: str
    type: str
    default: str | None
    about: str


class SavedQuery(ResponseModel):
    """A saved query of recorded events."""

    name: str
    about: str
    parameters: list[SavedParameter]
    sql: str


class SavedQueries(ResponseModel):
    """All saved queries, sorted by name."""

    items: list[SavedQuery]


class EventProof(ResponseModel):
    """The place of one event in its customer's signed log, and whether the place is proven.

    `path` has the hashes (RFC 6962, base64) that lead from `leaf_hash` to the root in `checkpoint`,
    the signed text of the first checkpoint of `size` events that contains the event. Without a
    checkpoint, `reason` is why there is no proof yet.
    """

    event: str
    customer: str
    leaf_hash: str
    index: int = 0
    size: int = 0
    path: list[str] = Field(default_factory=list)
    checkpoint: str = ""
    proven: bool = False
    reason: str = ""


class ProofsResponse(ResponseModel):
    """The events of a call with their proofs. `key` is the public key of this gateway's log."""

    call: str
    key: str
    events: list[EventProof]


class RuleReplay(ConfigModel):
    """Proposed rules, with which the recorded calls since `since` are decided again.

    Nothing is applied, called, reserved or recorded. Each rule replaces the configured one of this
    name; null removes it. A proposed shadow rule counts as enforced. At most `calls` calls are
    replayed, the newest first.
    """

    rules: dict[Name, Rule | None] = Field(min_length=1, max_length=100)
    since: Annotated[str, Field(pattern=AGO)] = "24h"
    calls: int = Field(default=2000, ge=1, le=5000)

    @property
    def seconds(self) -> int:
        """`since` in seconds."""
        return seconds_of(self.since)


class ReplayedCall(ResponseModel):
    """A recorded call whose decision the proposed rules change; `recorded` is the earlier decision.

    `rule` is the proposed rule that rejects the call. If no proposed rule rejects it, `rule` is the
    one that rejected it when it was recorded.
    """

    call_id: str
    at: float
    key: str
    tool: str
    recorded: Literal["allowed", "denied", "approval"]
    rule: str
    reason: str


class RuleReplayResponse(ResponseModel):
    """The number of recorded calls by what the proposed rules would change.

    `refused` would be denied, `approval` would wait for one, and `allowed` would not be
    rejected by a rule any more; `same` would not change. `unknown` calls depend on something that
    was not recorded; `missing` counts them by what that is. `by_key` and `by_tool` have the same
    counts, and `examples` some calls of each kind. Without `complete`, older calls were left out.
    `warnings` name unknown entries in the rules.
    """

    calls: int
    same: int
    refused: int
    approval: int
    allowed: int
    unknown: int
    missing: dict[str, int]
    by_key: dict[str, dict[str, int]]
    by_tool: dict[str, dict[str, int]]
    examples: dict[str, list[ReplayedCall]]
    complete: bool
    since: float
    warnings: list[LocatedProblem]
    revision: int


class HoldReason(ConfigModel):
    """The reason for a legal hold, such as a case number; it is recorded in the event."""

    reason: str = Field(min_length=1, max_length=512)


class Erasure(ConfigModel):
    """A person to erase, and the reason, which is recorded in the event.

    The person is a user's name, or `operator:`, `admin:`, `key:` or `customer:` with a name.
    """

    person: str = Field(min_length=1, max_length=256)
    reason: str = Field(min_length=1, max_length=512)


class ErasureResponse(ResponseModel):
    """The person, and the customers whose logs name the person.

    `plain` counts events from before names were encrypted, which still contain the name. With
    `erased`, `confirmed` replicas discarded the person's key, and `unconfirmed` did not in time:
    restart them.
    """

    person: str
    customers: list[str]
    plain: int
    erased: bool
    confirmed: int
    unconfirmed: int


class LegalHold(ResponseModel):
    """A legal hold: no event of the customer is deleted or erased. `since` is in Unix seconds."""

    customer: str
    reason: str
    since: float
    by: str


class LegalHolds(ResponseModel):
    """All legal holds, sorted by customer."""

    items: list[LegalHold]


class StatusResponse(ResponseModel):
    """The state of every service, and of one page of upstream servers.

    `missing` are services of which no replica replied. `guard_failures` has a message for each
    guard that allowed calls without a check in the last hour, and `alarms` other messages.
    `next` is the position of the next page of servers.
    """

    services: list[ServiceStatus]
    missing: list[str]
    servers: list[dict[str, Any]]
    guard_failures: list[str]
    alarms: list[str]
    next: str | None = None


class ServerStates(ResponseModel):
    """The states of one page of upstream servers, providers and guards with a service."""

    items: list[dict[str, Any]]
    next: str | None = None


class CheckResponse(ResponseModel):
    """The result of one check. With `warning`, nothing fails yet."""

    what: str
    ok: bool
    warning: bool
    message: str


class ChecksResponse(ResponseModel):
    """The results of all checks."""

    checks: list[CheckResponse]


class EventsResponse(ResponseModel):
    """One page of `rows` events: lines, or a whole Parquet file, in base64.

    `total` is the number of all events (first page only). `next` is empty on the last page.
    """

    rows: int
    next: str
    total: int
    data: str


class DefinitionDecision(ConfigModel):
    """The definition that is approved or rejected: exactly the one with this digest."""

    kind: Literal["tools", "prompts", "resources", "templates", "instructions"]
    name: str = Field(max_length=4096)
    digest: str = Field(pattern="^[0-9a-f]{64}$")


class DefinitionDifference(ResponseModel):
    """One member that was added (`+`), removed (`-`) or changed (`~`), as lines for review."""

    sign: Literal["+", "-", "~"]
    lines: list[str]


class DefinitionResponse(ResponseModel):
    """A definition of a server, with its differences from the approved one.

    `quarantined` is the reason for which it is hidden; empty if it is listed. `approved` and
    `rejected` are digests. `by` is the operator who decided, and `at` is the time of the decision
    in seconds since the epoch. `signals` are the rules that found instructions to a model, with
    their scores. `capabilities` says what the definition can do beyond the approved one, and
    `hidden` counts invisible characters by name.
    """

    name: str
    kind: str
    quarantined: str
    digest: str
    approved: str
    rejected: str
    by: str
    at: float
    signals: dict[str, float]
    differences: list[DefinitionDifference]
    capabilities: list[str]
    hidden: dict[str, int]
    definition: dict[str, Any]


class DefinitionsResponse(ResponseModel):
    """One page of definitions; `next` is the position of the next page."""

    items: list[DefinitionResponse]
    next: str | None = None


class StoredRevision(ResponseModel):
    """The number of a revision of the configuration, and when it was stored."""

    revision: int
    at: str


class RevisionsResponse(ResponseModel):
    """The stored revisions, the newest first. `revision` is the current one."""

    items: list[StoredRevision]
    revision: int
