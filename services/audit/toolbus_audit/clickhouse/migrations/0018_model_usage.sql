-- Tokens of model requests, as materialized columns. The event `model.used` contains no nested
-- objects (tests/contract/test_flat_events.py), so a search for the name of a field finds the field
-- (see migration 17).
ALTER TABLE events ADD COLUMN IF NOT EXISTS input_tokens Int64 MATERIALIZED
    if(event = 'model.used', simpleJSONExtractInt(detail, 'input_tokens'), 0);
ALTER TABLE events ADD COLUMN IF NOT EXISTS cached_tokens Int64 MATERIALIZED
    if(event = 'model.used', simpleJSONExtractInt(detail, 'cached_tokens'), 0);
ALTER TABLE events ADD COLUMN IF NOT EXISTS output_tokens Int64 MATERIALIZED
    if(event = 'model.used', simpleJSONExtractInt(detail, 'output_tokens'), 0);

-- Model requests that a provider answered, one row each. `input_tokens` includes `cached_tokens` and
-- `cache_write_tokens`; `output_tokens` includes `reasoning_tokens`. `tokens_per_second` is the rate
-- of the output after its first token; it is NULL if the response was not streamed.
CREATE VIEW IF NOT EXISTS model_requests AS
SELECT
    at,
    events.customer AS customer,
    events.key AS key,
    events.call_id AS call_id,
    events.parent_id AS parent_id,
    events.trace_id AS trace_id,
    events.server AS provider,
    events.tool AS model,
    JSONExtractString(detail, 'alias') AS alias,
    JSONExtractString(detail, 'provider_kind') AS provider_kind,
    events.method AS method,
    simpleJSONExtractBool(detail, 'streamed') AS streamed,
    events.charge AS charge,
    events.input_tokens AS input_tokens,
    events.cached_tokens AS cached_tokens,
    simpleJSONExtractInt(detail, 'cache_write_tokens') AS cache_write_tokens,
    events.output_tokens AS output_tokens,
    simpleJSONExtractInt(detail, 'reasoning_tokens') AS reasoning_tokens,
    simpleJSONExtractBool(detail, 'estimated') AS estimated,
    simpleJSONExtractInt(detail, 'attempt') AS attempt,
    simpleJSONExtractInt(detail, 'first_token_us') AS first_token_us,
    events.latency_us AS latency_us,
    if(
        first_token_us > 0 AND events.latency_us > first_token_us,
        events.output_tokens * 1e6 / (events.latency_us - first_token_us),
        NULL
    ) AS tokens_per_second,
    JSONExtractString(detail, 'finish_reason') AS finish_reason,
    simpleJSONExtractBool(detail, 'cut') AS cut,
    simpleJSONExtractInt(detail, 'tools_offered') AS tools_offered,
    simpleJSONExtractInt(detail, 'tools_suggested') AS tools_suggested
FROM events
WHERE event = 'model.used';

-- Cost and tokens of all calls, of tools and of models: the sums over a run, a key, a customer or a
-- time. A call is up to three rows: its decision with `team` and `user`, its outcome with `calls`,
-- `failed`, `charge` and `latency_us`, and the tokens of a model request. A run consists of the calls
-- with one trace id. `kind` is the first part of the method: tools, models, prompts or resources. The
-- charge of an unknown outcome is omitted if the outcome arrived later.
CREATE VIEW IF NOT EXISTS usage AS
SELECT
    at,
    multiIf(
        events.trace_id != '', events.trace_id,
        events.parent_id != '', events.parent_id,
        events.call_id
    ) AS run,
    events.call_id AS call_id,
    events.parent_id AS parent_id,
    events.customer AS customer,
    events.team AS team,
    events.user AS user,
    events.key AS key,
    substringIndex(toString(events.method), '/', 1) AS kind,
    events.method AS method,
    events.server AS server,
    events.tool AS tool,
    events.event AS event,
    events.code AS code,
    events.event IN ('call.completed', 'call.failed') AS calls,
    events.event = 'call.failed' AS failed,
    events.event = 'call.denied' AS denied,
    if(calls, events.charge, 0) AS charge,
    if(calls, events.latency_us, 0) AS latency_us,
    events.input_tokens AS input_tokens,
    events.cached_tokens AS cached_tokens,
    events.output_tokens AS output_tokens
FROM events
WHERE events.event IN ('call.allowed', 'call.denied', 'call.completed', 'call.failed', 'model.used')
    AND NOT (is_unknown AND call_id IN (
        SELECT call_id
        FROM events
        WHERE event IN ('call.completed', 'call.failed') AND is_unknown = false
            AND call_id IN (SELECT call_id FROM events WHERE is_unknown = true)
    ));

-- Tokens in the roll-ups. Hours that are already rolled up contain no event `model.used`.
ALTER TABLE rollup_hours ADD COLUMN IF NOT EXISTS input_tokens Int64 AFTER classic_tokens;
ALTER TABLE rollup_hours ADD COLUMN IF NOT EXISTS cached_tokens Int64 AFTER input_tokens;
ALTER TABLE rollup_hours ADD COLUMN IF NOT EXISTS output_tokens Int64 AFTER cached_tokens;
ALTER TABLE rollup_days ADD COLUMN IF NOT EXISTS input_tokens Int64 AFTER classic_tokens;
ALTER TABLE rollup_days ADD COLUMN IF NOT EXISTS cached_tokens Int64 AFTER input_tokens;
ALTER TABLE rollup_days ADD COLUMN IF NOT EXISTS output_tokens Int64 AFTER cached_tokens;

-- As in migration 11, with the tokens of model requests.
CREATE OR REPLACE VIEW rollup_hours_live AS
SELECT
    counted.hour AS hour,
    counted.customer AS customer,
    if(counted.team != '', counted.team, teams.team) AS team,
    counted.key AS key,
    counted.server AS server,
    counted.tool AS tool,
    counted.event AS event,
    counted.code AS code,
    counted.events AS events,
    counted.charge AS charge,
    counted.corrected AS corrected,
    counted.errors AS errors,
    counted.spent_tokens AS spent_tokens,
    counted.classic_tokens AS classic_tokens,
    counted.input_tokens AS input_tokens,
    counted.cached_tokens AS cached_tokens,
    counted.output_tokens AS output_tokens,
    counted.latency AS latency
FROM
(
    SELECT
        toStartOfHour(at) AS hour,
        events.customer AS customer,
        toString(events.team) AS team,
        events.key AS key,
        events.server AS server,
        events.tool AS tool,
        events.event AS event,
        events.code AS code,
        count() AS events,
        sum(events.charge) AS charge,
        toUInt64(0) AS corrected,
        countIf(events.is_error) AS errors,
        sum(events.spent_tokens) AS spent_tokens,
        sum(events.classic_tokens) AS classic_tokens,
        sum(events.input_tokens) AS input_tokens,
        sum(events.cached_tokens) AS cached_tokens,
        sum(events.output_tokens) AS output_tokens,
        quantilesTDigestState(0.5, 0.9, 0.95, 0.99)(events.latency_us) AS latency
    FROM events
    WHERE (toStartOfHour(at), events.customer) IN (SELECT hour, customer FROM hours WHERE NOT valid)
    GROUP BY hour, customer, team, key, server, tool, event, code
    UNION ALL
    SELECT
        toStartOfHour(ended.at) AS hour,
        ended.customer AS customer,
        '' AS team,
        ended.key AS key,
        ended.server AS server,
        ended.tool AS tool,
        'call.corrected' AS event,
        '' AS code,
        toUInt64(0) AS events,
        -sum(unknown.charge) AS charge,
        count() AS corrected,
        toUInt64(0) AS errors,
        toInt64(0) AS spent_tokens,
        toInt64(0) AS classic_tokens,
        toInt64(0) AS input_tokens,
        toInt64(0) AS cached_tokens,
        toInt64(0) AS output_tokens,
        arrayReduce('quantilesTDigestState(0.5, 0.9, 0.95, 0.99)', emptyArrayInt64()) AS latency
    FROM
    (
        SELECT call_id, min(at) AS at, any(customer) AS customer, any(key) AS key,
            any(server) AS server, any(tool) AS tool
        FROM events
        WHERE event IN ('call.completed', 'call.failed') AND is_unknown = false
            AND call_id IN (SELECT call_id FROM events WHERE is_unknown = true)
            AND toStartOfHour(events.at) >= (
                SELECT minOrNull(hour) - toIntervalDay(1) FROM hours WHERE NOT valid
            )
        GROUP BY call_id
    ) AS ended
    INNER JOIN
    (
        SELECT call_id, any(charge) AS charge FROM events WHERE is_unknown = true GROUP BY call_id
    ) AS unknown
    ON ended.call_id = unknown.call_id
    WHERE (toStartOfHour(ended.at), ended.customer) IN (SELECT hour, customer FROM hours WHERE NOT valid)
    GROUP BY hour, customer, team, key, server, tool, event, code
) AS counted
LEFT JOIN
(
    SELECT
        known.hour + toIntervalHour(later) AS hour,
        known.customer AS customer,
        known.key AS key,
        argMin(known.team, (later, -toInt64(known.events))) AS team
    FROM
    (
        SELECT toStartOfHour(at) AS hour, events.customer AS customer, events.key AS key,
            events.team AS team, count() AS events
        FROM events
        WHERE events.team != '' AND toStartOfHour(at) >= (
            SELECT minOrNull(hour) - toIntervalDay(1) FROM hours WHERE NOT valid
        )
        GROUP BY hour, customer, key, team
    ) AS known
    ARRAY JOIN range(25) AS later
    GROUP BY hour, customer, key
) AS teams
ON counted.customer = teams.customer AND counted.key = teams.key AND counted.hour = teams.hour;

CREATE OR REPLACE VIEW events_by_hour AS
SELECT hour, customer, team, key, server, tool, event, code, events, charge, corrected, errors,
    spent_tokens, classic_tokens, input_tokens, cached_tokens, output_tokens, latency
FROM rollup_hours
WHERE (hour, customer, version) IN (SELECT hour, customer, version FROM hours WHERE valid)
UNION ALL
SELECT hour, customer, team, key, server, tool, event, code, events, charge, corrected, errors,
    spent_tokens, classic_tokens, input_tokens, cached_tokens, output_tokens, latency
FROM rollup_hours_live;

-- As in migration 13, with the tokens of model requests.
CREATE OR REPLACE VIEW events_by_day AS
SELECT day, customer, team, key, server, tool, event, code, events, charge, corrected, errors,
    spent_tokens, classic_tokens, input_tokens, cached_tokens, output_tokens, latency
FROM rollup_days
WHERE (day, customer, version) IN (SELECT day, customer, version FROM days WHERE valid)
UNION ALL
SELECT toDate(hour) AS day, customer, team, key, server, tool, event, code, events, charge, corrected,
    errors, spent_tokens, classic_tokens, input_tokens, cached_tokens, output_tokens, latency
FROM events_by_hour
WHERE (toDate(hour), customer) IN (SELECT day, customer FROM days WHERE NOT valid);

-- Model requests that a provider answered, by hour and by day: charges in micro-dollars.
CREATE VIEW IF NOT EXISTS models_by_hour AS
SELECT hour, customer, team, key, server AS provider, tool AS model, events_by_hour.events AS requests,
    charge, input_tokens, cached_tokens, output_tokens, latency
FROM events_by_hour
WHERE event = 'model.used';

CREATE VIEW IF NOT EXISTS models_by_day AS
SELECT day, customer, team, key, server AS provider, tool AS model, events_by_day.events AS requests,
    charge, input_tokens, cached_tokens, output_tokens, latency
FROM events_by_day
WHERE event = 'model.used';

-- As in migration 16, without model requests: their arguments and results are the context itself, not
-- a part that Toolbus adds to it.
CREATE OR REPLACE VIEW context_by_key AS
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
    AND NOT startsWith(events.method, 'models/')
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
