-- Tokens of lists, arguments and results by key, compared with the tokens without Toolbus.
-- since: DateTime = 7d | start of the period
SELECT customer, key, what, sum(requests) AS requests,
    sum(spent_tokens) AS spent_tokens, sum(classic_tokens) AS classic_tokens,
    sum(whole_tokens) AS whole_tokens
FROM context_by_key
WHERE hour >= {since:DateTime}
GROUP BY customer, key, what
ORDER BY customer, key, what
