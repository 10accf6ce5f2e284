-- Which keys were refused, what for, and how often.
-- since: DateTime = 24h | from when
SELECT customer, key, server, tool, code, count() AS refused, max(at) AS last,
    argMax(events.reason, at) AS said
FROM events
WHERE event = 'call.denied' AND at >= {since:DateTime}
GROUP BY customer, key, server, tool, code
ORDER BY refused DESC
