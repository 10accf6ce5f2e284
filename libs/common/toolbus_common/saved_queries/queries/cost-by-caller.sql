-- Cost by customer, team, user and key, with tools and models together.
-- since: DateTime = 24h | start of the period
SELECT customer, team, user, key, sum(model_calls) AS model_requests, sum(tool_calls) AS tool_calls,
    sum(input) AS input_tokens, sum(output) AS output_tokens,
    sum(model_charge) / 1e6 AS model_dollars, sum(tool_charge) / 1e6 AS tool_dollars,
    model_dollars + tool_dollars AS dollars
FROM (
    SELECT customer, key, max(usage.team) AS team, max(usage.user) AS user,
        sumIf(calls, kind = 'models') AS model_calls, sumIf(calls, kind != 'models') AS tool_calls,
        sumIf(charge, kind = 'models') AS model_charge, sumIf(charge, kind != 'models') AS tool_charge,
        sum(input_tokens) AS input, sum(output_tokens) AS output
    FROM usage
    WHERE at >= {since:DateTime}
    GROUP BY customer, key, call_id
)
GROUP BY customer, team, user, key
ORDER BY dollars DESC, input_tokens + output_tokens DESC
