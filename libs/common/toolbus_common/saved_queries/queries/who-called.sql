-- Calls around a point in time, with key, user, tool, cost and result.
-- at: DateTime = now | the point in time
-- minutes: UInt32 = 5 | minutes before and after that time
SELECT decided.at AS at, key, team, user, server, tool, method, ended.event AS ended, ended.code AS code,
    ended.charge / 1e6 AS dollars, ended.latency_us / 1e3 AS ms, approval, call_id, trace_id
FROM (
    SELECT at, key, team, user, server, tool, method, approval, call_id, trace_id
    FROM events
    WHERE event = 'call.allowed' AND at BETWEEN {at:DateTime} - toIntervalMinute({minutes:UInt32})
        AND {at:DateTime} + toIntervalMinute({minutes:UInt32})
    UNION ALL
    SELECT at, key, team, user, server, tool, method, '' AS approval, call_id, trace_id
    FROM events
    WHERE event = 'call.denied' AND at BETWEEN {at:DateTime} - toIntervalMinute({minutes:UInt32})
        AND {at:DateTime} + toIntervalMinute({minutes:UInt32})
) AS decided
LEFT JOIN (
    SELECT call_id, argMax(outcome.event, NOT is_unknown) AS event, argMax(outcome.code, NOT is_unknown) AS code,
        argMax(outcome.charge, NOT is_unknown) AS charge,
        argMax(outcome.latency_us, NOT is_unknown) AS latency_us
    FROM events AS outcome
    WHERE outcome.event IN ('call.completed', 'call.failed', 'call.denied')
        AND at >= {at:DateTime} - toIntervalMinute({minutes:UInt32})
        AND at < {at:DateTime} + toIntervalDay(2)
    GROUP BY call_id
) AS ended USING call_id
ORDER BY at
