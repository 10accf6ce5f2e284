-- Latency of tools at their servers: median, 95th and 99th percentile.
-- since: DateTime = 24h | start of the period
-- least: UInt32 = 1 | the minimum number of calls; tools with fewer calls are omitted
-- customer: String = % | only this customer (a pattern of LIKE)
SELECT server, tool, sum(completed) AS calls,
    arrayMap(us -> round(us / 1e3, 1),
        quantilesTDigestMergeIf(0.5, 0.9, 0.95, 0.99)(latency, completed > 0)) AS q,
    q[1] AS p50_ms, q[3] AS p95_ms, q[4] AS p99_ms
FROM calls_by_hour
WHERE hour >= {since:DateTime} AND customer LIKE {customer:String}
GROUP BY server, tool
HAVING calls >= {least:UInt32}
ORDER BY p95_ms DESC
