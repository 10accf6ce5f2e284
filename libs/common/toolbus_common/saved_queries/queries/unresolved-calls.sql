-- Allowed calls without a recorded outcome; they may or may not have been executed.
-- since: DateTime = 30d | start of the period
SELECT at, customer, key, server, tool, call_id, charge / 1e6 AS dollars_reserved,
    toDateTime(JSONExtractFloat(detail, 'deadline'), 'UTC') AS deadline
FROM events
WHERE event = 'call.allowed' AND at >= {since:DateTime} AND deadline < now() AND call_id IN (
    SELECT call_id
    FROM events
    WHERE event IN ('call.allowed', 'call.completed', 'call.failed') AND at >= {since:DateTime}
    GROUP BY call_id
    HAVING countIf(event != 'call.allowed') = 0
)
ORDER BY at
