-- Code-mode programs with their calls, cost and resource use.
-- since: DateTime = 24h | start of the period
SELECT began, customer, key, engine, state, code, calls, refused, failed,
    cost / 1e6 AS dollars, latency_us / 1e3 AS ms, run
FROM runs
WHERE began >= {since:DateTime}
ORDER BY began DESC
