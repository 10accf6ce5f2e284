-- Tools that a key used for the first time, which can show a stolen key.
-- since: DateTime = 24h | start of the period
SELECT min(hour) AS first, customer, key, server, tool, sum(calls) AS calls
FROM calls_by_hour
GROUP BY customer, key, server, tool
HAVING first >= {since:DateTime}
ORDER BY first DESC
