-- Denied calls by key and reason.
-- since: DateTime = 24h | start of the period
SELECT customer, key, server, tool, code, count() AS denials, max(at) AS last,
    argMax(events.reason, at) AS last_reason
FROM events
WHERE event = 'call.denied' AND at >= {since:DateTime}
GROUP BY customer, key, server, tool, code
ORDER BY denials DESC
