-- Savings of the cache of model responses, by team and model: hits, tokens, dollars.
-- since: DateTime = 30d | start of the period
SELECT m.customer AS customer, asked.team AS team, m.provider AS provider, m.model AS model,
    count() AS requests, countIf(m.cache = 'hit') AS hits,
    countIf(m.cache = 'semantic-hit') AS semantic_hits,
    round((hits + semantic_hits) / requests, 3) AS hit_share,
    sum(m.saved_tokens) AS saved_tokens, sum(m.saved) / 1e6 AS saved_dollars,
    sum(m.charge) / 1e6 AS dollars
FROM model_requests AS m
LEFT JOIN (
    SELECT call_id, any(team) AS team FROM events
    WHERE event = 'call.allowed' AND startsWith(method, 'models/') AND at >= {since:DateTime}
    GROUP BY call_id
) AS asked ON asked.call_id = m.call_id
WHERE m.at >= {since:DateTime} AND m.cache IN ('hit', 'semantic-hit', 'miss')
GROUP BY customer, team, provider, model
ORDER BY saved_dollars DESC, saved_tokens DESC
