-- Which rules refused calls, and which would have, were they not shadows.
-- since: DateTime = 7d | from when
SELECT each AS rule, countIf(facts.rule = each) AS refused, countIf(has(shadow, each)) AS would_have,
    uniqExact(key) AS keys, max(at) AS last
FROM facts
ARRAY JOIN arrayDistinct(arrayFilter(name -> name != '', arrayPushBack(shadow, facts.rule))) AS each
WHERE fact IN ('call.denied', 'call.allowed') AND at >= {since:DateTime}
GROUP BY each
ORDER BY refused + would_have DESC
