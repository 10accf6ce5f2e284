"""The question lane: `tb.query.<service>.<what>`, answered at once and never stored."""

from typing import Any, ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message


class Query(Message):
    """A question to one service, or with service `all` to every replica of every service.

    `AT_ONCE` is how many of them a replica works on at the same time: more than one where anybody
    outside may ask, or an answer waits for others.
    """

    SUBJECT: ClassVar[str]
    AT_ONCE: ClassVar[int] = 1


class StatusQuery(Query):
    """How are you? Heard by every replica of every service."""

    SUBJECT: ClassVar[str] = "tb.query.all.status"


class ServiceStatus(Message):
    """One process's answer for one service. `since` is seconds since the epoch.

    `heard` is the newest revision it knows of each bucket it watches: who is behind shows there.
    """

    service: str
    instance: str
    pid: int
    ready: bool
    since: float
    reason: str = ""
    details: dict[str, Any] = Field(default_factory=dict)
    heard: dict[str, int] = Field(default_factory=dict)


class ServersQuery(Query):
    """How are the upstreams? Heard by executor."""

    SUBJECT: ClassVar[str] = "tb.query.executor.servers"


class ServersReply(Message):
    """One row per upstream: name, state, breaker, in flight, last failure."""

    servers: tuple[dict[str, Any], ...]


class SessionsQuery(Query):
    """Which sessions at servers are held, and by whom? Heard by every executor."""

    SUBJECT: ClassVar[str] = "tb.query.all.sessions"


class SessionsReply(Message):
    """One executor's answer: for each server its bounds, how many are open, and who holds them."""

    instance: str
    servers: dict[str, dict[str, Any]]


class AuditQuery(Query):
    """One read-only SQL statement. Heard by audit, asked by operators only.

    `parameters` are the values of its `{name:Type}`, as text.
    What is sealed of people is told in the plain while their keys exist, unless it is wanted
    `as_stored`.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.query"

    sql: str
    limit: int = 1000
    parameters: dict[str, str] = Field(default_factory=dict)
    as_stored: bool = False


class RowsReply(Message):
    """The answer to a query: columns, and rows of JSON values. `more` when cut at the limit."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: bool = False


class SpendingQuery(Query):
    """What did the events charge a customer for tools? Heard by audit, asked by policy.

    Calls count at the moment they were allowed, from `start` and before `end`, in steps of so many
    seconds (0: in one).
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.spending"

    customer: str
    start: float
    end: float
    step: int = 0


class SpendingReply(Message):
    """Rows of key, user, team, server, tool, step, calls, micro-dollars.

    `since` is when the oldest event of all was said. With `more` there are too many rows or calls
    to tell at once: ask for a shorter time.
    """

    rows: tuple[tuple[Any, ...], ...]
    since: float
    more: bool = False


class OpenCallsQuery(Query):
    """Which calls has no outcome ended? Heard by audit, asked by policy.

    With them come calls charged as unknown at `late` or after: an outcome may still correct those.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.open"

    customer: str
    start: float
    end: float
    late: float


class OpenCall(Message):
    """A call that was allowed. `unknown_at` is when it was charged as unknown, 0 if it was not.

    `stream_seq` is the number its intent has in the stream EVENTS.
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
    """The calls. With `more` there are too many to tell at once: ask for a shorter time."""

    calls: tuple[OpenCall, ...]
    more: bool = False


class LedgerQuery(Query):
    """How do the budgets stand? Heard by policy. Of one customer, or of all when it is empty."""

    SUBJECT: ClassVar[str] = "tb.query.policy.ledger"

    customer: str = ""


class BudgetState(Message):
    """One budget. Amounts are micro-dollars where `kind` is `usd`, else calls."""

    customer: str
    level: str
    kind: str
    per: str
    timezone: str = "UTC"
    rolling: bool = False
    tools: tuple[str, ...] = ()
    limit: int
    spent: int
    held: int
    debt: int
    resets_at: float


class LedgerReply(Message):
    """Every budget, and of each customer whose counters are lost a sentence. `more` when cut."""

    budgets: tuple[BudgetState, ...]
    lost: dict[str, str] = Field(default_factory=dict)
    more: bool = False


class RebuildRequest(Query):
    """Make a customer's counters anew from the events. Heard by policy, asked by operators.

    With `accept` also when the events do not reach back as far as the budgets do.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.rebuild"

    customer: str
    accept: bool = False
    by: str = ""


class RebuildReply(Message):
    """The new epoch, what it began with, and since when the events were counted."""

    epoch: str
    calls: int
    held: int
    since: float
