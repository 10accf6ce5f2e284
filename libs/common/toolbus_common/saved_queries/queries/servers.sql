-- State changes of upstream servers: lost, recovered, drained, circuit breaker opened.
-- since: DateTime = 24h | start of the period
SELECT at, event, server, reason
FROM events
WHERE (startsWith(event, 'server.') OR startsWith(event, 'breaker.')) AND at >= {since:DateTime}
ORDER BY at DESC
