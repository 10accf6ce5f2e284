-- Spending by customer and day.
-- since: DateTime = 30d | start of the period
SELECT toDate(hour) AS day, customer, sum(completed + failed) AS calls,
    sum(charge) / 1e6 AS dollars
FROM calls_by_hour
WHERE hour >= {since:DateTime}
GROUP BY day, customer
ORDER BY day, customer
