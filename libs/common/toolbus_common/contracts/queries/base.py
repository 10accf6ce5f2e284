"""Queries: requests on `tb.query.<service>.<query>`, replied to immediately and never stored."""

from typing import Any, ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message


class Query(Message):
    """A query to one service, or with service `all` to every replica of every service.

    `AT_ONCE` is the number of queries of this type that a replica processes concurrently: more than
    one if clients outside Toolbus can cause them, so that they do not wait for each other.
    """

    SUBJECT: ClassVar[str]
    AT_ONCE: ClassVar[int] = 1


class StatusQuery(Query):
    """Return the status. Sent by operators, answered by every replica of every service."""

    SUBJECT: ClassVar[str] = "tb.query.all.status"


class ServiceStatus(Message):
    """The status of one service in one process. `since` is in seconds since the epoch.

    `revisions` is the newest revision received of each bucket that the process watches: it shows
    which replica lags behind. `reason` says why the service is not ready.
    """

    service: str
    instance: str
    pid: int
    ready: bool
    since: float
    reason: str = ""
    details: dict[str, Any] = Field(default_factory=dict)
    revisions: dict[str, int] = Field(default_factory=dict)


class ServersQuery(Query):
    """Return the status of all upstream servers. Answered by executor."""

    SUBJECT: ClassVar[str] = "tb.query.executor.servers"


class ServersReply(Message):
    """One row per upstream server: name, state, breaker, calls in flight, last error."""

    servers: tuple[dict[str, Any], ...]


class SessionsQuery(Query):
    """Return the open sessions at upstream servers. Answered by every executor replica."""

    SUBJECT: ClassVar[str] = "tb.query.all.sessions"


class SessionsReply(Message):
    """One executor's sessions: for each server its limits, the number open, and their owners."""

    instance: str
    servers: dict[str, dict[str, Any]]


class AuditQuery(Query):
    """Run one read-only SQL statement. Sent by operators only, answered by audit.

    `parameters` are the values of its `{name:Type}` placeholders, as text. `limit` is the maximum
    number of rows. Encrypted personal data is returned as plain text while its keys exist, unless
    `as_stored` is set.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.query"

    sql: str
    limit: int = 1000
    parameters: dict[str, str] = Field(default_factory=dict)
    as_stored: bool = False


class RowsReply(Message):
    """The result of an audit query: columns, and rows of JSON values.

    `more` if rows were left out.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: bool = False


class SpendingQuery(Query):
    """Return a customer's charges for tools, from the events. Sent by policy, answered by audit.

    Calls count at the time they were allowed, from `start` and before `end` (seconds since the
    epoch), in steps of `step` seconds (0: one step).
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.spending"

    customer: str
    start: float
    end: float
    step: int = 0


class SpendingReply(Message):
    """Rows of key, user, team, server, tool, step, calls, micro-dollars.

    `since` is the time of the oldest stored event. `more` is true if there are too many rows or
    calls for one reply; query a shorter interval.
    """

    rows: tuple[tuple[Any, ...], ...]
    since: float
    more: bool = False


class OpenCallsQuery(Query):
    """Return the allowed calls without an outcome. Sent by policy, answered by audit.

    The reply includes calls charged as unknown at `late` or after: an outcome may still correct
    them. Times are in seconds since the epoch.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.open"

    customer: str
    start: float
    end: float
    late: float


class OpenCall(Message):
    """An allowed call without an outcome. Times are in seconds since the epoch.

    `unknown_at` is when it was charged as unknown, 0 if it was not. `charge` is in micro-dollars.
    `stream_seq` is the sequence number of its `call.allowed` event in the stream EVENTS.
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


class OpenCallsReply(Message):
    """The open calls.

    `more` is true if there are too many for one reply; query a shorter interval.
    """

    calls: tuple[OpenCall, ...]
    more: bool = False


class LedgerQuery(Query):
    """Return the state of all budgets of one customer; an empty `customer` means all customers.

    Sent by operators, answered by policy.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.ledger"

    customer: str = ""


class BudgetState(Message):
    """One budget. Amounts are in micro-dollars if `kind` is `usd`, else calls.

    `spent` is the settled amount, `reserved` the amount of running calls, `debt` the amount by
    which calls cost more than their reservations. `resets_at` is in seconds since the epoch.
    """

    customer: str
    level: str
    kind: str
    per: str
    timezone: str = "UTC"
    rolling: bool = False
    tools: tuple[str, ...] = ()
    limit: int
    spent: int
    reserved: int
    debt: int
    resets_at: float


class LedgerReply(Message):
    """All budgets, and a message per customer whose counters were lost. `more` if truncated."""

    budgets: tuple[BudgetState, ...]
    lost: dict[str, str] = Field(default_factory=dict)
    more: bool = False


class RebuildRequest(Query):
    """Rebuild a customer's counters from the events. Sent by operators, answered by policy.

    With `accept` the counters are created even if the events do not cover the budgets' periods.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.rebuild"

    customer: str
    accept: bool = False
    by: str = ""


class RebuildReply(Message):
    """The new epoch of the counters, its initial values, and the start of the counted events.

    `calls` are the calls in progress and `reserved` their reservations; `since` is in seconds since
    the epoch.
    """

    epoch: str
    calls: int
    reserved: int
    since: float
