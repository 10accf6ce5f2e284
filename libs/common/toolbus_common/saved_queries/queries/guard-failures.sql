-- Checks that a guard could not make, by reason, and how many calls were rejected or passed without a check.
-- since: DateTime = 7d | start of the period
SELECT customer, guard, phase, error,
    uniqExactIf(call_id, event IN ('call.denied', 'call.failed')) AS rejected,
    uniqExactIf(call_id, event NOT IN ('call.denied', 'call.failed')) AS passed,
    max(at) AS last, argMax(call_id, at) AS last_call
FROM guard_checks
WHERE verdict = 'failed' AND at >= {since:DateTime}
GROUP BY customer, guard, phase, error
ORDER BY passed DESC, rejected DESC, guard
