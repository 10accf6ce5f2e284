-- How long tools took at their servers: the median, and what one call in twenty and a hundred exceeds.
-- since: DateTime = 24h | from when
-- least: UInt32 = 1 | tools with fewer calls are left out
SELECT server, tool, sum(completed) AS calls,
    arrayMap(us -> round(us / 1e3, 1),
        quantilesTDigestMergeIf(0.5, 0.9, 0.95, 0.99)(latency, completed > 0)) AS q,
    q[1] AS p50_ms, q[3] AS p95_ms, q[4] AS p99_ms
FROM calls_by_hour
WHERE hour >= {since:DateTime}
GROUP BY server, tool
HAVING calls >= {least:UInt32}
ORDER BY p95_ms DESC
