-- Calls that were charged as unknown and whose outcome arrived later: the hour is that of the outcome.
-- A roll-up of an hour stores them, so `usage` need not search for them in all events.
CREATE TABLE IF NOT EXISTS late_outcomes
(
    hour DateTime('UTC'),
    customer LowCardinality(String),
    call_id String
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, customer, call_id);

-- Those of the hours without a valid roll-up.
CREATE OR REPLACE VIEW late_outcomes_live AS
SELECT toStartOfHour(events.at) AS hour, events.customer AS customer, events.call_id AS call_id
FROM events
WHERE events.event IN ('call.completed', 'call.failed') AND events.is_unknown = false
    AND (toStartOfHour(events.at), events.customer) IN (
        SELECT hours.hour, hours.customer FROM hours WHERE NOT hours.valid
    )
    AND events.call_id IN (
        SELECT call_id FROM events
        WHERE is_unknown = true AND toStartOfHour(events.at) >= (
            SELECT minOrNull(hour) - toIntervalDay(7) FROM hours WHERE NOT valid
        )
    );

-- Hours that are already rolled up.
INSERT INTO late_outcomes (hour, customer, call_id)
SELECT toStartOfHour(at), customer, call_id
FROM events
WHERE event IN ('call.completed', 'call.failed') AND is_unknown = false
    AND call_id IN (SELECT call_id FROM events WHERE is_unknown = true);

-- As in migration 18, without a search in all events.
CREATE OR REPLACE VIEW usage AS
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
        SELECT late_outcomes.call_id FROM late_outcomes
        UNION ALL
        SELECT late_outcomes_live.call_id FROM late_outcomes_live
    ));
