"""Calls that were allowed and of which nothing more was heard."""

from typing import ClassVar

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class UnresolvedCallsQuery(Query):
    """Which calls allowed from `start` and before `end` has no event ended? Heard by audit."""

    SUBJECT: ClassVar[str] = "tb.query.audit.unresolved"

    start: float
    end: float


class UnresolvedCall(Message):
    """One of them, as its intent told it; `deadline` is seconds since the epoch.

    `reserved` says that money was held for it.
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
    """The calls, the oldest first. With `more` there are others that were allowed later."""

    calls: tuple[UnresolvedCall, ...]
    more: bool = False
