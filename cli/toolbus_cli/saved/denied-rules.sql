-- Which rules refused calls, and which would have, were they not shadows.
-- since: DateTime = 7d | from when
SELECT each AS rule, countIf(events.rule = each) AS refused, countIf(has(shadow, each)) AS would_have,
    uniqExact(key) AS keys, max(at) AS last
FROM events
ARRAY JOIN arrayDistinct(arrayFilter(name -> name != '', arrayPushBack(shadow, events.rule))) AS each
WHERE event IN ('call.denied', 'call.allowed') AND at >= {since:DateTime}
GROUP BY each
ORDER BY refused + would_have DESC
