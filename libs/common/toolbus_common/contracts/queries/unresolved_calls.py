"""Allowed calls without an outcome event."""

from typing import ClassVar

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class UnresolvedCallsQuery(Query):
    """Return the calls allowed from `start` and before `end` that have no outcome event.

    Sent by operators, answered by audit. Times are in seconds since the epoch.
    """

    SUBJECT: ClassVar[str] = "tb.query.audit.unresolved"

    start: float
    end: float


class UnresolvedCall(Message):
    """An allowed call without an outcome, from its `call.allowed` event.

    `charge` is in micro-dollars, `reserved` whether it was reserved in the ledger. `at` and
    `deadline` are in seconds since the epoch.
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
    """The calls, oldest first. `more` is true if there are further calls, allowed later."""

    calls: tuple[UnresolvedCall, ...]
    more: bool = False
