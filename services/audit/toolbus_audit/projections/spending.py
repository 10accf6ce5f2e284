"""Spending, open calls and unresolved calls, for policy to rebuild and settle its counters."""

import re

from toolbus_audit.projections.recorded_calls import MAX_ROWS, MAX_UNRESOLVED, RecordedCalls
from toolbus_common.contracts import (
    OpenCall,
    OpenCallsQuery,
    OpenCallsReply,
    SpendingQuery,
    SpendingReply,
    UnresolvedCallsQuery,
    UnresolvedCallsReply,
)
from toolbus_common.errors import InvalidError
from toolbus_common.privacy.key_store import PersonKeys

_STREAM = re.compile(r"[0-9]{1,32}")


async def spending(calls: RecordedCalls, people: PersonKeys, query: SpendingQuery) -> SpendingReply:
    """Return the charges by key, user, team, server, tool and step. Raises `InvalidError`."""
    if (query.last or query.sequences) and not _STREAM.fullmatch(query.stream):
        raise InvalidError("The query's `stream` is not the id of a stream; use its digits.")
    rows = await calls.charges(query)
    return SpendingReply(
        rows=tuple(map(tuple, people.revealed(rows[:MAX_ROWS]))),
        since=await calls.oldest(),
        more=len(rows) > MAX_ROWS,
        messages=await calls.messages(query) if query.last else 0,
        sequences=await calls.sequences(query) if query.sequences else (),
        ids=await calls.ids(query) if query.ids else (),
    )


async def open_calls(
    calls: RecordedCalls, people: PersonKeys, query: OpenCallsQuery
) -> OpenCallsReply:
    """Return the calls without an outcome. Raises `InvalidError`."""
    rows = await calls.open_calls(query)
    names = tuple(OpenCall.model_fields)
    plain = people.revealed(rows[:MAX_ROWS])
    found = [OpenCall(**dict(zip(names, row, strict=True))) for row in plain]
    return OpenCallsReply(calls=tuple(found), more=len(rows) > MAX_ROWS)


async def unresolved_calls(
    calls: RecordedCalls, query: UnresolvedCallsQuery
) -> UnresolvedCallsReply:
    """Return the allowed calls of a period without an outcome event, the oldest first."""
    found = await calls.unresolved(query)
    return UnresolvedCallsReply(
        calls=tuple(found[:MAX_UNRESOLVED]), more=len(found) > MAX_UNRESOLVED
    )
