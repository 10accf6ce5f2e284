-- As before (migration 11), but how calls charged as unknown ended is looked for no further back than
-- a day before the first hour whose sums do not hold: once calls were lost, every question read all.
CREATE OR REPLACE VIEW sums_anew AS
SELECT
    said.hour AS hour,
    said.customer AS customer,
    if(said.team != '', said.team, teams.team) AS team,
    said.key AS key,
    said.server AS server,
    said.tool AS tool,
    said.event AS event,
    said.code AS code,
    said.events AS events,
    said.charge AS charge,
    said.corrected AS corrected,
    said.errors AS errors,
    said.spent_tokens AS spent_tokens,
    said.classic_tokens AS classic_tokens,
    said.latency AS latency
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
        quantilesTDigestState(0.5, 0.9, 0.95, 0.99)(events.latency_us) AS latency
    FROM events
    WHERE (toStartOfHour(at), events.customer) IN (SELECT hour, customer FROM hours WHERE NOT holds)
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
        arrayReduce('quantilesTDigestState(0.5, 0.9, 0.95, 0.99)', emptyArrayInt64()) AS latency
    FROM
    (
        SELECT call_id, min(at) AS at, any(customer) AS customer, any(key) AS key,
            any(server) AS server, any(tool) AS tool
        FROM events
        WHERE event IN ('call.completed', 'call.failed') AND is_unknown = false
            AND call_id IN (SELECT call_id FROM events WHERE is_unknown = true)
            AND toStartOfHour(events.at) >= (
                SELECT minOrNull(hour) - toIntervalDay(1) FROM hours WHERE NOT holds
            )
        GROUP BY call_id
    ) AS ended
    INNER JOIN
    (
        SELECT call_id, any(charge) AS charge FROM events WHERE is_unknown = true GROUP BY call_id
    ) AS unknown
    ON ended.call_id = unknown.call_id
    WHERE (toStartOfHour(ended.at), ended.customer) IN (SELECT hour, customer FROM hours WHERE NOT holds)
    GROUP BY hour, customer, team, key, server, tool, event, code
) AS said
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
            SELECT minOrNull(hour) - toIntervalDay(1) FROM hours WHERE NOT holds
        )
        GROUP BY hour, customer, key, team
    ) AS known
    ARRAY JOIN range(25) AS later
    GROUP BY hour, customer, key
) AS teams
ON said.customer = teams.customer AND said.key = teams.key AND said.hour = teams.hour;
