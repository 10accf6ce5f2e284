-- Tokens of models by key: input, cached input, output, reasoning, dollars.
-- since: DateTime = 7d | start of the period
SELECT customer, key, count() AS requests, uniqExact(provider, model) AS models,
    sum(m.input_tokens) AS input_tokens, sum(m.cached_tokens) AS cached_tokens,
    sum(m.cache_write_tokens) AS cache_write_tokens, sum(m.output_tokens) AS output_tokens,
    sum(m.reasoning_tokens) AS reasoning_tokens, countIf(m.estimated) AS estimated,
    sum(m.charge) / 1e6 AS dollars
FROM model_requests AS m
WHERE at >= {since:DateTime}
GROUP BY customer, key
ORDER BY input_tokens + output_tokens DESC
