"""Allowed calls without an outcome event."""

from typing import ClassVar

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class UnresolvedCallsQuery(Query):
    """Return the calls allowed from `start` and before `end` that have no outcome event.

    Operators send this query to audit. Times are in seconds since the epoch.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.unresolved"

    start: float
    end: float


class UnresolvedCall(Message):
    """An allowed call without an outcome, read from its `call.allowed` event.

    `charge` is in micro-dollars. `reserved` is true if the ledger had a reservation for the call.
    `at` and `deadline` are in seconds since the epoch.
    """

    call_id: str
    parent_id: str
    trace_id: str
    customer: str
    key: str
    server: str
    tool: str
    method: str
    charge: int
    at: float
    deadline: float
    reserved: bool = False


class UnresolvedCallsReply(Message):
    """The calls, oldest first. `more` is true if later calls are omitted."""

    calls: tuple[UnresolvedCall, ...]
    more: bool = False
