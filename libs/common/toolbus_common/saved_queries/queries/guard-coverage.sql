-- Share of calls and bytes that each guard checked, by key and tool; the guard is empty for calls without a guard.
-- since: DateTime = 7d | start of the period
SELECT calls.customer AS customer, calls.key AS key, calls.tool AS tool, calls.stage AS stage,
    checks.guard AS guard, calls.n AS calls, checks.checked AS checked, checks.failed AS failed,
    round(100 * checks.checked / calls.n, 2) AS percent, calls.bytes AS bytes,
    round(if(calls.bytes = 0, 100 * checks.checked / calls.n, 100 * checks.bytes / calls.bytes), 2)
        AS percent_of_bytes
FROM
(
    SELECT customer, key, concat(server, '__', tool) AS tool,
        if(event = 'call.allowed', 'before', 'after') AS stage, count() AS n, sum(whole_bytes) AS bytes
    FROM events
    WHERE event IN ('call.allowed', 'call.completed') AND at >= {since:DateTime}
    GROUP BY customer, key, tool, stage
) AS calls
LEFT JOIN
(
    SELECT customer, key, concat(server, '__', tool) AS tool,
        if(event = 'call.allowed', 'before', 'after') AS stage, name AS guard,
        countIf(NOT has(failures, name)) AS checked, countIf(has(failures, name)) AS failed,
        sumIf(whole_bytes, NOT has(failures, name)) AS bytes
    FROM
    (
        SELECT customer, key, server, tool, event, whole_bytes,
            JSONExtract(guards, 'Array(Tuple(guard String, verdict String))') AS made,
            arrayMap(each -> each.1, arrayFilter(each -> each.2 = 'failed', made)) AS failures
        FROM events
        WHERE event IN ('call.allowed', 'call.completed') AND guards != '' AND at >= {since:DateTime}
    )
    ARRAY JOIN arrayDistinct(arrayMap(each -> each.1, made)) AS name
    GROUP BY customer, key, tool, stage, guard
) AS checks
USING (customer, key, tool, stage)
ORDER BY customer, key, tool, stage DESC, guard
