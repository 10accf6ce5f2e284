-- Input tokens that providers read from their prompt caches, and what that saved, by key and model.
-- since: DateTime = 7d | start of the period
SELECT customer, key, e.server AS provider, e.tool AS model, count() AS requests,
    sum(e.input_tokens) AS input_tokens, sum(e.cached_tokens) AS cached_tokens,
    sum(simpleJSONExtractInt(detail, 'cache_write_tokens')) AS cache_write_tokens,
    round(cached_tokens / nullIf(input_tokens, 0), 3) AS cached_share,
    sum(simpleJSONExtractInt(detail, 'cached_savings')) / 1e6 AS saved_dollars,
    sum(e.charge) / 1e6 AS dollars
FROM events AS e
WHERE event = 'model.used' AND at >= {since:DateTime}
GROUP BY customer, key, provider, model
ORDER BY input_tokens DESC
