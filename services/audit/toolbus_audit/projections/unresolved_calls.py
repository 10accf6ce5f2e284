"""Allowed calls without an outcome event."""

from toolbus_audit.clickhouse.query import ReadOnlyStore, decode
from toolbus_audit.events_file import projections as in_file
from toolbus_audit.events_file.store import EventsFile
from toolbus_common.contracts import UnresolvedCall, UnresolvedCallsQuery, UnresolvedCallsReply

MAX_ROWS = 1000
# Selects the few unresolved calls first, and only then reads their intents.
_UNRESOLVED = """
SELECT call_id, parent_id, trace_id, customer, key, server, tool, method, charge,
    toFloat64(at) AS at_, greatest(JSONExtractFloat(detail, 'deadline'), extended.deadline),
    JSONExtractBool(detail, 'reserved')
FROM events
LEFT JOIN (
    SELECT call_id, max(JSONExtractFloat(detail, 'deadline')) AS deadline FROM events
    WHERE event = 'call.extended' AND at >= fromUnixTimestamp64Micro({start})
    GROUP BY call_id) AS extended USING call_id
WHERE event = 'call.allowed' AND at >= fromUnixTimestamp64Micro({start})
    AND at < fromUnixTimestamp64Micro({end})
    AND call_id IN (
        SELECT call_id FROM events
        WHERE at >= fromUnixTimestamp64Micro({start})
            AND (event IN ('call.completed', 'call.failed')
                OR (event = 'call.allowed' AND at < fromUnixTimestamp64Micro({end})))
        GROUP BY call_id HAVING countIf(event != 'call.allowed') = 0)
ORDER BY at_, call_id
"""


async def unresolved_calls(
    store: ReadOnlyStore, query: UnresolvedCallsQuery
) -> UnresolvedCallsReply:
    """Return the unresolved calls of a period, the oldest first."""
    if isinstance(store, EventsFile):
        found = await in_file.unresolved(store, query, MAX_ROWS + 1)
        return UnresolvedCallsReply(calls=tuple(found[:MAX_ROWS]), more=len(found) > MAX_ROWS)
    sql = _UNRESOLVED.format(start=int(query.start * 1e6), end=int(query.end * 1e6))
    rows = decode(await store.query(sql, MAX_ROWS + 1)).data
    names = tuple(UnresolvedCall.model_fields)
    calls = [UnresolvedCall(**dict(zip(names, row, strict=True))) for row in rows[:MAX_ROWS]]
    return UnresolvedCallsReply(calls=tuple(calls), more=len(rows) > MAX_ROWS)
