-- Denied calls by rule, including calls that shadow rules would have denied.
-- since: DateTime = 7d | start of the period
SELECT each AS rule, countIf(events.rule = each) AS denied, countIf(has(shadow, each)) AS would_deny,
    uniqExact(key) AS keys, max(at) AS last
FROM events
ARRAY JOIN arrayDistinct(arrayFilter(name -> name != '', arrayPushBack(shadow, events.rule))) AS each
WHERE event IN ('call.denied', 'call.allowed') AND at >= {since:DateTime}
GROUP BY each
ORDER BY denied + would_deny DESC
