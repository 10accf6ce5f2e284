-- Input tokens that providers read from their prompt caches, by key and model.
-- since: DateTime = 7d | start of the period
SELECT customer, key, provider, model, count() AS requests, sum(m.input_tokens) AS input_tokens,
    sum(m.cached_tokens) AS cached_tokens, sum(m.cache_write_tokens) AS cache_write_tokens,
    round(cached_tokens / nullIf(input_tokens, 0), 3) AS cached_share, sum(m.charge) / 1e6 AS dollars
FROM model_requests AS m
WHERE at >= {since:DateTime}
GROUP BY customer, key, provider, model
ORDER BY input_tokens DESC
