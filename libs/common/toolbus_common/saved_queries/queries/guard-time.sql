-- Time and cost per KB of the checks of each guard, and its verdicts.
-- since: DateTime = 24h | start of the period
SELECT guard, phase, version, count() AS checks, countIf(cached) AS from_cache,
    countIf(verdict NOT IN ('passed', 'failed')) AS found, countIf(verdict = 'failed') AS failed,
    sum(bytes) AS checked_bytes, quantileExactIf(0.5)(us, NOT cached) AS p50_us,
    quantileExactIf(0.95)(us, NOT cached) AS p95_us, maxIf(us, NOT cached) AS max_us,
    round(1024 * sumIf(us, NOT cached) / greatest(sumIf(bytes, NOT cached), 1), 1) AS us_per_kb
FROM guard_checks
WHERE at >= {since:DateTime}
GROUP BY guard, phase, version
ORDER BY sumIf(us, NOT cached) DESC, guard, phase
