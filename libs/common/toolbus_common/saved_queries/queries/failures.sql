-- Failed calls by tool and error code.
-- since: DateTime = 24h | start of the period
-- customer: String = % | only this customer (a pattern of LIKE)
SELECT server, tool, code, sum(failed) AS failed, sum(errors) AS tool_errors,
    sum(sum(calls)) OVER (PARTITION BY server, tool) AS calls_of_tool
FROM calls_by_hour
WHERE hour >= {since:DateTime} AND customer LIKE {customer:String} AND denied = 0
GROUP BY server, tool, code
HAVING failed > 0 OR tool_errors > 0
ORDER BY failed + tool_errors DESC
