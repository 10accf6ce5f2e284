-- Code-mode programs with their calls, cost and resource use.
-- since: DateTime = 24h | start of the period
SELECT started_at, customer, key, engine, state, code, calls, denied, failed,
    cost / 1e6 AS dollars, latency_us / 1e3 AS ms, run
FROM runs
WHERE started_at >= {since:DateTime}
ORDER BY started_at DESC
