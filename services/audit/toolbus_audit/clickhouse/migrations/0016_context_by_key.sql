-- Bytes of calls as materialized columns: bytes sent to the caller, and bytes of the server's result.
-- Events written before `sent_bytes` existed count the whole result as sent.
ALTER TABLE events ADD COLUMN IF NOT EXISTS sent_bytes Int64 MATERIALIZED multiIf(
    event = 'call.allowed', JSONExtractInt(detail, 'arguments_bytes'),
    event = 'call.completed' AND JSONHas(detail, 'sent_bytes'), JSONExtractInt(detail, 'sent_bytes'),
    event = 'call.completed', JSONExtractInt(detail, 'result_bytes'),
    0
);
ALTER TABLE events ADD COLUMN IF NOT EXISTS whole_bytes Int64 MATERIALIZED multiIf(
    event = 'call.allowed', JSONExtractInt(detail, 'arguments_bytes'),
    event = 'call.completed',
        greatest(JSONExtractInt(detail, 'whole_bytes'), JSONExtractInt(detail, 'result_bytes')),
    0
);

-- Context tokens of each key's lists and calls. `spent_tokens` were sent to the model.
-- `classic_tokens` is the cost without code mode, search, request restrictions, selections and results
-- by reference; for lists, `whole_tokens` is the cost without grants too. A token is four bytes, except
-- in code mode, where a tokenizer counts (`counted_by`). The calls of a program count as classic only,
-- because their results are not sent to the model.
CREATE VIEW IF NOT EXISTS context_by_key AS
SELECT
    toStartOfHour(at) AS hour,
    events.customer AS customer,
    events.key AS key,
    'lists' AS what,
    sum(JSONExtractInt(detail, 'lists')) AS requests,
    intDiv(sum(JSONExtractInt(detail, 'spent_bytes')) + 3, 4) AS spent_tokens,
    intDiv(sum(JSONExtractInt(detail, 'classic_bytes')) + 3, 4) AS classic_tokens,
    intDiv(sum(JSONExtractInt(detail, 'whole_bytes')) + 3, 4) AS whole_tokens,
    'bytes/4' AS counted_by
FROM events
WHERE event = 'context.listed'
GROUP BY hour, customer, key
UNION ALL
SELECT
    toStartOfHour(at) AS hour,
    events.customer AS customer,
    events.key AS key,
    if(event = 'call.allowed', 'arguments', 'results') AS what,
    toInt64(count()) AS requests,
    intDiv(sumIf(
        events.sent_bytes,
        events.parent_id NOT IN (SELECT call_id FROM events WHERE event = 'run.started')
    ) + 3, 4) AS spent_tokens,
    intDiv(sum(events.whole_bytes) + 3, 4) AS classic_tokens,
    classic_tokens AS whole_tokens,
    'bytes/4' AS counted_by
FROM events
WHERE event IN ('call.allowed', 'call.completed') AND events.server != 'toolbus'
GROUP BY hour, customer, key, what
UNION ALL
SELECT
    toStartOfHour(at) AS hour,
    events.customer AS customer,
    events.key AS key,
    'code mode' AS what,
    toInt64(count()) AS requests,
    sum(JSONExtractInt(detail, 'request_tokens') + JSONExtractInt(detail, 'answer_tokens'))
        AS spent_tokens,
    toInt64(0) AS classic_tokens,
    toInt64(0) AS whole_tokens,
    any(JSONExtractString(detail, 'counted_by')) AS counted_by
FROM events
WHERE event = 'context.spent'
GROUP BY hour, customer, key;
