-- Spending by key: calls, failures, dollars.
-- since: DateTime = 30d | start of the period
-- customer: String = % | only this customer (a pattern of LIKE)
SELECT key AS key, sum(calls) AS calls, sum(failed) AS failed, sum(denied) AS denied,
    sum(charge) / 1e6 AS dollars
FROM calls_by_hour
WHERE hour >= {since:DateTime} AND customer LIKE {customer:String}
GROUP BY key
ORDER BY dollars DESC, calls DESC
