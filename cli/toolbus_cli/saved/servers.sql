-- What happened to upstream servers: lost, back, drained, their breakers opened.
-- since: DateTime = 24h | from when
SELECT at, event, server, reason
FROM events
WHERE (startsWith(event, 'server.') OR startsWith(event, 'breaker.')) AND at >= {since:DateTime}
ORDER BY at DESC
