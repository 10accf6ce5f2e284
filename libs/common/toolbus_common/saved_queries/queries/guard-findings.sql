-- What guards found, by guard, rule and tool, including calls that an observing guard would have changed.
-- since: DateTime = 7d | start of the period
SELECT customer, guard, finding AS rule, phase, concat(server, '__', tool) AS tool,
    uniqExact(call_id) AS calls, uniqExact(key) AS keys, groupUniqArray(verdict) AS verdicts,
    max(score) AS score, max(at) AS last, argMax(call_id, at) AS last_call
FROM guard_checks
ARRAY JOIN findings AS finding
WHERE at >= {since:DateTime}
GROUP BY customer, guard, rule, phase, tool
ORDER BY calls DESC, guard, rule
