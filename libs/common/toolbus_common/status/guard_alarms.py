"""Guards that allowed calls without a check in the last hour."""

from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.errors import ToolbusError
from toolbus_common.messaging.request_reply import RequestReply

SECONDS = 5.0
# The event `guard.failed` also reports content outside of calls, such as definitions.
OPEN_FAILURES = (
    "SELECT guard, count() AS times, any(reason) AS reason FROM ("
    " SELECT DISTINCT call_id, guard, error AS reason FROM guard_checks"
    " WHERE verdict = 'failed' AND event IN ('call.allowed', 'call.completed')"
    " AND at >= now() - INTERVAL 1 HOUR UNION DISTINCT"
    " SELECT call_id, JSONExtractString(detail, 'guard') AS guard, events.reason AS reason"
    " FROM events WHERE event = 'guard.failed' AND at >= now() - INTERVAL 1 HOUR"
    ") GROUP BY guard ORDER BY guard"
)


async def open_failures(queries: RequestReply) -> list[str] | None:
    """Return a message for each guard that failed open; None if audit does not reply."""
    try:
        found = await queries.request(AuditQuery(sql=OPEN_FAILURES), RowsReply, SECONDS)
    except ToolbusError:
        return None
    return [message(*row) for row in found.rows]


def message(guard: str, times: int | str, reason: str) -> str:
    """Return the message about one guard."""
    return (
        f"'{guard}' could not check {times} contents in the last hour and let them pass: "
        f"{reason.rstrip('.')}; repair it, or set 'fail: closed'"
    )
