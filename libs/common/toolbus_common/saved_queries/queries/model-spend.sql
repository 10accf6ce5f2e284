-- Spending on models by team and model: requests, tokens, dollars.
-- since: DateTime = 30d | start of the period
SELECT customer, team, provider, model, sum(requests) AS answered,
    sum(models_by_hour.input_tokens) AS input_tokens,
    sum(models_by_hour.cached_tokens) AS cached_tokens,
    sum(models_by_hour.output_tokens) AS output_tokens, sum(charge) / 1e6 AS dollars
FROM models_by_hour
WHERE hour >= {since:DateTime}
GROUP BY customer, team, provider, model
ORDER BY dollars DESC, input_tokens + output_tokens DESC
