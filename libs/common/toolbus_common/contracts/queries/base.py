"""Queries on `tb.query.<service>.<query>`. They are never stored, and are processed immediately."""

from typing import Any, ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.guards import CheckedCall


class Query(Message):
    """A query to one service, or to every replica of every service (service `all`).

    `AT_ONCE` is the number of queries of this type that a replica processes concurrently. It is
    more than one if clients outside Toolbus can cause the queries, so that clients do not wait for
    each other.
    """

    SUBJECT: ClassVar[str]
    AT_ONCE: ClassVar[int] = 1


class StatusQuery(Query):
    """Return the status. Every replica of every service replies to operators and to policy."""

    SUBJECT: ClassVar[str] = "tb.query.all.status"


class ServiceStatus(Message):
    """The status of one service in one process. `since` is in seconds since the epoch.

    `revisions` contains the newest received revision of each bucket that the process watches. It
    shows which replica lags behind. `reason` is the cause if the service is not ready. `keys`
    contains the digests of keys that can be replaced while the service runs: of the one in use, and
    of those that it accepts.
    """

    service: str
    instance: str
    pid: int
    ready: bool
    since: float
    reason: str = ""
    details: dict[str, Any] = Field(default_factory=dict)
    revisions: dict[str, int] = Field(default_factory=dict)
    keys: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class ServersQuery(Query):
    """Return the status of all upstream servers. Operators and policy send it to executor."""

    SUBJECT: ClassVar[str] = "tb.query.executor.servers"


class ServersReply(Message):
    """One row per upstream server: name, state, breaker, running calls, last error."""

    servers: tuple[dict[str, Any], ...]


class SessionsQuery(Query):
    """Return the open sessions at upstream servers. Every executor replica replies."""

    SUBJECT: ClassVar[str] = "tb.query.all.sessions"


class SessionsReply(Message):
    """The sessions of one executor: the limits, the number open and the owners, by server."""

    instance: str
    servers: dict[str, dict[str, Any]]


class AuditQuery(Query):
    """Run one read-only SQL statement. Operators and policy send this query to audit.

    `parameters` contains the values of the `{name:Type}` placeholders, as text. `limit` is the
    maximum number of rows. Encrypted personal data is returned as plain text as long as its keys
    exist, unless `as_stored` is set.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.query"

    sql: str
    limit: int = 1000
    parameters: dict[str, str] = Field(default_factory=dict)
    as_stored: bool = False


class GuardChecksQuery(Query):
    """Return the calls since a time with the guards that checked them. Audit replies.

    `since` is in seconds since the epoch. A row is marked as current if `revision` of the
    configuration, or a later one, decided its calls.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.guard_checks"

    since: float
    revision: int


class RowsReply(Message):
    """The result of an audit query: the column names, and rows of JSON values.

    `more` is true if rows were omitted.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: bool = False


CORRECTABLE_SECONDS = 86_400  # in which an outcome may still correct a charge as unknown


class SpendingQuery(Query):
    """Return a customer's charges for tools, from the events. Policy sends this query to audit.

    A call counts at the time when it was allowed, from `start` and before `end` (seconds since the
    epoch), in steps of `step` seconds (0 means one step). With `aliases`, the last column contains
    the aliases that contained the model when its request was allowed, separated by spaces. With
    `last`, the stored messages of the customer are counted: those of the stream `stream` with
    sequence numbers from `first` to `last`. `sequences` are messages of this stream, and `ids` are
    events of the customer; the reply lists those of them that are stored.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.spending"

    customer: str
    start: float
    end: float
    step: int = 0
    aliases: bool = False
    stream: str = ""
    first: int = 0
    last: int = 0
    sequences: tuple[int, ...] = ()
    ids: tuple[str, ...] = ()


class SpendingReply(Message):
    """Rows of key, user, team, server, tool, step, calls, micro-dollars, and requested aliases.

    `since` is the time of the oldest stored event. `more` is true if there are too many rows or
    calls for one reply. In this case, query a shorter interval. `store` is the id of the store, and
    `messages` is the number of the customer's stored messages, for a query with `last`. `sequences`
    and `ids` are those in the query that are stored.
    """

    rows: tuple[tuple[Any, ...], ...]
    since: float
    more: bool = False
    store: str = ""
    messages: int = 0
    sequences: tuple[int, ...] = ()
    ids: tuple[str, ...] = ()


class OpenCallsQuery(Query):
    """Return the allowed calls without an outcome. Policy sends this query to audit.

    The reply includes calls that were charged as unknown at `late` or after it, because an outcome
    can still correct them. Times are in seconds since the epoch.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.open"

    customer: str
    start: float
    end: float
    late: float


class OpenCall(Message):
    """An allowed call without an outcome. Times are in seconds since the epoch.

    `unknown_at` is the time when the call was charged as unknown, or 0. `charge` is in
    micro-dollars. `stream_seq` is the sequence number of its `call.allowed` event in the stream
    EVENTS. `aliases` are the aliases that contained the model at that time, separated by spaces.
    """

    call_id: str
    parent_id: str
    trace_id: str
    key: str
    user: str
    team: str
    server: str
    tool: str
    charge: int
    at: float
    deadline: float
    unknown_at: float = 0.0
    stream_seq: int = 0
    aliases: str = ""


class OpenCallsReply(Message):
    """The allowed calls without an outcome.

    `more` is true if there are too many for one reply. In this case, query a shorter interval.
    `store` is the id of the store.
    """

    calls: tuple[OpenCall, ...]
    more: bool = False
    store: str = ""


class LedgerQuery(Query):
    """Return the state of all budgets of one customer, or of all customers if it is empty.

    Operators send this query to policy.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.ledger"

    customer: str = ""


class BudgetState(Message):
    """The state of one budget.

    Amounts are in micro-dollars if `kind` is `usd`, otherwise in calls. `spent` is the settled
    amount. `reserved` is the amount reserved for running calls. `debt` is the amount by which calls
    cost more than their reservations. `resets_at` is in seconds since the epoch.
    """

    customer: str
    level: str
    kind: str
    per: str
    timezone: str = "UTC"
    rolling: bool = False
    tools: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    limit: int
    spent: int
    reserved: int
    debt: int
    resets_at: float


class LedgerReply(Message):
    """The state of all budgets. `more` is true if it is truncated.

    `lost` contains a message for each customer whose counters were lost.
    """

    budgets: tuple[BudgetState, ...]
    lost: dict[str, str] = Field(default_factory=dict)
    more: bool = False


class RebuildRequest(Query):
    """Rebuild a customer's counters from the events. Operators send this query to policy.

    With `accept`, the counters are created even if the events do not cover the periods of the
    budgets.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.rebuild"

    customer: str
    accept: bool = False
    by: str = ""


class RebuildReply(Message):
    """The new epoch of the counters, with its initial values.

    `calls` is the number of running calls, and `reserved` is the sum of their reservations. `since`
    is the time of the oldest counted event, in seconds since the epoch.
    """

    epoch: str
    calls: int
    reserved: int
    since: float


class GuardQuery(Query):
    """Check content with a guard that asks another service. Sent by policy and codemode.

    `phase` is the phase of the guard, and `content` is the JSON document to check. The reply is a
    `ServiceVerdict`, or an error if the service could not be asked.
    """

    SUBJECT: ClassVar[str] = "tb.query.executor.guard"
    BODY: ClassVar[str | None] = "content"
    AT_ONCE: ClassVar[int] = 512

    guard: str
    phase: str
    call: CheckedCall
    content: bytes = Field(default=b"", exclude=True, repr=False)
