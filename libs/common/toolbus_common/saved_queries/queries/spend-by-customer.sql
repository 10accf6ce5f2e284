-- Spending by customer: calls, failures, dollars.
-- since: DateTime = 30d | start of the period
SELECT customer, sum(calls) AS calls, sum(failed) AS failed, sum(denied) AS denied,
    sum(charge) / 1e6 AS dollars
FROM calls_by_hour
WHERE hour >= {since:DateTime}
GROUP BY customer
ORDER BY dollars DESC, calls DESC
