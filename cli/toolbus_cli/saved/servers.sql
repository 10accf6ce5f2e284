-- What happened to upstream servers: lost, back, drained, their breakers opened.
-- since: DateTime = 24h | from when
SELECT at, fact, server, reason
FROM facts
WHERE (startsWith(fact, 'server.') OR startsWith(fact, 'breaker.')) AND at >= {since:DateTime}
ORDER BY at DESC
