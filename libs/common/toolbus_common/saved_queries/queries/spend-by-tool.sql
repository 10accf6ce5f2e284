-- Spending by tool: calls, dollars, and dollars per call.
-- since: DateTime = 30d | start of the period
-- customer: String = % | only this customer (a pattern of LIKE)
SELECT server, tool, sum(calls) AS calls, sum(charge) / 1e6 AS dollars,
    dollars / nullIf(sum(completed + failed), 0) AS dollars_per_call
FROM calls_by_hour
WHERE hour >= {since:DateTime} AND customer LIKE {customer:String}
GROUP BY server, tool
ORDER BY dollars DESC, calls DESC
