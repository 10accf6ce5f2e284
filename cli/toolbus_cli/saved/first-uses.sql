-- Which keys used a tool for the first time: what somebody new, or somebody else, would do.
-- since: DateTime = 24h | from when
SELECT min(hour) AS first, customer, key, server, tool, sum(calls) AS calls
FROM calls_by_hour
GROUP BY customer, key, server, tool
HAVING first >= {since:DateTime}
ORDER BY first DESC
