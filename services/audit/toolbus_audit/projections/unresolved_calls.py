"""Calls that were allowed and never ended, as far as the events tell."""

from typing import Any

import msgspec

from toolbus_audit.clickhouse.query import Answers
from toolbus_common.contracts import UnresolvedCall, UnresolvedCallsQuery, UnresolvedCallsReply

MOST = 1000
# The calls first, of which there are few, and then what their intents say.
_UNENDED = """
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


class _Told(msgspec.Struct):
    data: list[list[Any]] = []


_decode = msgspec.json.Decoder(_Told).decode


async def unended(store: Answers, question: UnresolvedCallsQuery) -> UnresolvedCallsReply:
    """Those of them that were allowed first."""
    sql = _UNENDED.format(start=int(question.start * 1e6), end=int(question.end * 1e6))
    data = await store.ask(sql, MOST + 1)
    rows = _decode(data).data if data else []
    names = tuple(UnresolvedCall.model_fields)
    calls = [UnresolvedCall(**dict(zip(names, row, strict=True))) for row in rows[:MOST]]
    return UnresolvedCallsReply(calls=tuple(calls), more=len(rows) > MOST)
