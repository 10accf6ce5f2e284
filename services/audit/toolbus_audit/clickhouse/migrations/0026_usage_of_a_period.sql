-- As in migration 24, without the view `hours`, which counts all events: outcomes of the last days are
-- searched for directly. An outcome that is older than these days, and arrives only now, is found as
-- soon as its hour is rolled up again. The indexes of `is_unknown` and `call_id` skip most of the events.
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
        SELECT ended.call_id
        FROM events AS ended
        WHERE ended.event IN ('call.completed', 'call.failed') AND ended.is_unknown = false
            AND ended.at >= (
                SELECT least(max(newest.at), now64(6, 'UTC')) - toIntervalDay(8) FROM events AS newest
            )
            AND ended.call_id IN (SELECT unknown.call_id FROM events AS unknown WHERE unknown.is_unknown = true)
    ));
