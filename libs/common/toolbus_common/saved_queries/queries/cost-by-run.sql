-- The most expensive runs, with tools and models together: for whom, tokens, dollars, what was called.
-- since: DateTime = 24h | start of the period
-- runs: UInt32 = 100 | the maximum number of runs
SELECT min(at) AS started, any(u.customer) AS customer, max(u.team) AS team, max(u.user) AS user,
    arrayStringConcat(groupUniqArray(10)(key), ' ') AS keys,
    sumIf(calls, kind = 'models') AS model_requests, sumIf(calls, kind NOT IN ('models', 'agents')) AS tool_calls,
    sum(u.failed) AS failed, sum(u.denied) AS denied,
    sum(u.input_tokens) AS input_tokens, sum(u.output_tokens) AS output_tokens,
    sumIf(charge, kind = 'models') / 1e6 AS model_dollars,
    sumIf(charge, kind != 'models') / 1e6 AS tool_dollars, sum(charge) / 1e6 AS dollars,
    arrayStringConcat(arraySort(groupUniqArrayIf(50)(
        concat(server, if(kind = 'models', '/', '__'), tool), u.calls OR u.denied)), ' ') AS called,
    run
FROM usage AS u
WHERE at >= {since:DateTime} AND run IN (
    SELECT run
    FROM usage
    WHERE at >= {since:DateTime}
    GROUP BY run
    ORDER BY sum(charge) DESC, sum(input_tokens + output_tokens) DESC
    LIMIT {runs:UInt32}
)
GROUP BY run
ORDER BY dollars DESC, input_tokens + output_tokens DESC
