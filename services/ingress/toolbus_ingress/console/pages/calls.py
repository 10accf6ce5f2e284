"""Recorded calls: the newest calls, and all events of one call."""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console.timeline import timeline_of
from toolbus_ingress.console.visitor import SignedIn, Visitor

SHOWN = 100
MOST_ROWS = 1000
_API = "/api/v1/audit/query"
_NEWEST = """
SELECT formatDateTime(at, '%F %T') AS time, call_id, key, server, tool, event, code, rule,
    charge / 1e6 AS dollars, latency_us / 1e3 AS ms
FROM events
WHERE event IN ('call.completed', 'call.failed', 'call.denied')
    AND at >= now() - INTERVAL {days:UInt16} DAY
    AND position(key, {key:String}) > 0
    AND position(concat(server, '__', tool), {tool:String}) > 0
    AND ({result:String} = '' OR event = concat('call.', {result:String}))
ORDER BY events.at DESC
LIMIT 100
"""
_STORY = """
SELECT formatDateTime(at, '%F %T.%f') AS time, call_id, toUnixTimestamp64Micro(at) AS us,
    event, key, server, tool, code, reason, rule, approval, method, charge / 1e6 AS dollars,
    latency_us, latency_us / 1e3 AS ms, detail
FROM events
WHERE call_id = {call:String} OR parent_id = {call:String}
ORDER BY events.at, stream_seq, line
"""
router = APIRouter(prefix="/calls")


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a statement. With `more`, further rows were left out."""

    columns: list[str]
    rows: list[list[Any]]
    more: bool = False

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows as dictionaries by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


async def queried(visitor: Visitor, sql: str, **parameters: str) -> Table:
    """Return the rows of a statement on the recorded events. Raises `ProblemError`."""
    body = {"sql": sql, "parameters": parameters, "limit": MOST_ROWS}
    reply = (await visitor.api.send("POST", _API, body)).data
    return Table(reply["columns"], reply["rows"], reply["more"])


@router.get("")
async def list_calls(
    visitor: SignedIn, key: str = "", tool: str = "", result: str = "", days: int = 1
) -> Response:
    """Return the newest recorded calls."""
    selected = {"key": key, "tool": tool, "result": result, "days": str(max(1, min(days, 365)))}
    found = await queried(visitor, _NEWEST, **selected)
    return visitor.page("calls.html", rows=found.records, selected=selected, most=SHOWN)


@router.get("/{call}")
async def show_call(visitor: SignedIn, call: str) -> Response:
    """Return all events of one call, ordered by time."""
    found = await queried(visitor, _STORY, call=call)
    steps = timeline_of(call, found.records)
    return visitor.page("call.html", call=call, events=found.records, steps=steps)
