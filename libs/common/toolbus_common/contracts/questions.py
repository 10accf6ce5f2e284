"""The question lane: `tb.ask.<room>.<what>`, answered at once and never stored."""

from typing import Any, ClassVar

from pydantic import Field

from toolbus_common.contracts.message import Message


class Question(Message):
    """A question to one room, or with room `all` to every replica of every room."""

    SUBJECT: ClassVar[str]


class StatusAsked(Question):
    """How are you? Heard by every replica of every room."""

    SUBJECT: ClassVar[str] = "tb.ask.all.status"


class RoomStatus(Message):
    """One process's answer for one room. `since` is seconds since the epoch."""

    room: str
    instance: str
    pid: int
    ready: bool
    since: float
    reason: str = ""
    details: dict[str, Any] = Field(default_factory=dict)


class ServersAsked(Question):
    """How are the upstreams? Heard by executor."""

    SUBJECT: ClassVar[str] = "tb.ask.executor.servers"


class ServersTold(Message):
    """One row per upstream: name, state, breaker, in flight, last failure."""

    servers: tuple[dict[str, Any], ...]


class AuditQueried(Question):
    """One read-only SQL statement. Heard by audit, asked by operators only."""

    SUBJECT: ClassVar[str] = "tb.ask.audit.query"

    sql: str
    limit: int = 1000


class RowsFound(Message):
    """The answer to a query: columns, and rows of JSON values. `more` when cut at the limit."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: bool = False
