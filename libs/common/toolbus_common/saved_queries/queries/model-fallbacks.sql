-- Fallbacks of models: failed attempts by target and error, and requests that a fallback answered.
-- since: DateTime = 24h | start of the period
SELECT server AS provider, tool AS model, countIf(event = 'call.failed') AS failed,
    countIf(event = 'model.used') AS answered,
    countIf(event = 'model.used' AND simpleJSONExtractInt(detail, 'attempt') > 0)
        AS answered_as_fallback,
    countIf(event = 'model.used' AND simpleJSONExtractBool(detail, 'cut')) AS cut,
    arrayStringConcat(arraySort(groupUniqArrayIf(10)(code, event = 'call.failed')), ' ') AS codes,
    maxIf(at, event = 'call.failed') AS last_failure
FROM events
WHERE event IN ('call.failed', 'model.used') AND startsWith(method, 'models/')
    AND at >= {since:DateTime}
GROUP BY provider, model
HAVING failed > 0 OR answered_as_fallback > 0
ORDER BY failed DESC, answered_as_fallback DESC
