-- What lists, arguments and results cost each key's context in tokens, and would have without Toolbus.
-- since: DateTime = 7d | from when
SELECT customer, key, what, sum(requests) AS requests,
    sum(spent_tokens) AS spent_tokens, sum(classic_tokens) AS classic_tokens,
    sum(whole_tokens) AS whole_tokens
FROM context_by_key
WHERE hour >= {since:DateTime}
GROUP BY customer, key, what
ORDER BY customer, key, what
