-- Tokens used in code mode, compared with sending every definition in every request.
-- since: DateTime = 7d | start of the period
SELECT customer, key, sum(calls) AS calls, sum(spent_tokens) AS spent_tokens,
    sum(classic_tokens) AS classic_tokens,
    round(1 - spent_tokens / nullIf(classic_tokens, 0), 3) AS saved
FROM context_by_hour
WHERE hour >= {since:DateTime}
GROUP BY customer, key
ORDER BY classic_tokens DESC
