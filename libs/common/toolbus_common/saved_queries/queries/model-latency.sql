-- Time to the first token of models (median, 95th and 99th percentile), and tokens per second (median, slowest 5 % and 1 %).
-- since: DateTime = 24h | start of the period
SELECT provider, model, count() AS requests, countIf(streamed) AS streams, countIf(cut) AS cut,
    arrayMap(us -> round(us / 1e3, 1),
        quantilesTDigestIf(0.5, 0.95, 0.99)(first_token_us, first_token_us > 0)) AS first,
    first[1] AS first_p50_ms, first[2] AS first_p95_ms, first[3] AS first_p99_ms,
    arrayMap(rate -> round(rate, 1),
        quantilesTDigest(0.5, 0.05, 0.01)(tokens_per_second)) AS rates,
    rates[1] AS rate_p50, rates[2] AS rate_p5, rates[3] AS rate_p1,
    round(quantileTDigest(0.95)(latency_us) / 1e3, 1) AS total_p95_ms
FROM model_requests
WHERE at >= {since:DateTime} AND cache NOT IN ('hit', 'semantic-hit')
GROUP BY provider, model
ORDER BY requests DESC
