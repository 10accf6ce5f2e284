-- The hours of each customer, and whether their roll-up is valid.
CREATE VIEW IF NOT EXISTS hours AS
SELECT
    counted.hour AS hour,
    counted.customer AS customer,
    counted.events AS events,
    done.version AS version,
    done.version > 0 AND done.events = counted.events AS valid
FROM
(
    SELECT toStartOfHour(at) AS hour, events.customer AS customer, count() AS events
    FROM events
    GROUP BY hour, customer
) AS counted
LEFT JOIN
(
    SELECT hour, customer, argMax(rollup_hours_done.events, rollup_hours_done.version) AS events,
        max(rollup_hours_done.version) AS version
    FROM rollup_hours_done
    GROUP BY hour, customer
) AS done
ON counted.hour = done.hour AND counted.customer = done.customer;

-- The hours without a valid roll-up, computed from the events. An outcome has no team: it gets the
-- team that its key had in that hour, or up to a day before. A call whose outcome arrived after it was
-- charged as unknown is corrected in the hour of that outcome (`call.corrected`). Such outcomes are
-- searched from a day before the first hour without a valid roll-up, not in the whole table.
CREATE VIEW IF NOT EXISTS rollup_hours_live AS
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

-- All events by hour, customer, team, key, server, tool, event and code. `latency` is an aggregate
-- state: read it with quantilesTDigestMerge(0.5, 0.9, 0.95, 0.99)(latency).
CREATE VIEW IF NOT EXISTS events_by_hour AS
SELECT hour, customer, team, key, server, tool, event, code, events, charge, corrected, errors,
    spent_tokens, classic_tokens, latency
FROM rollup_hours
WHERE (hour, customer, version) IN (SELECT hour, customer, version FROM hours WHERE valid)
UNION ALL
SELECT hour, customer, team, key, server, tool, event, code, events, charge, corrected, errors,
    spent_tokens, classic_tokens, latency
FROM rollup_hours_live;

-- Calls by hour: outcomes, charges in micro-dollars, latency of the server.
CREATE VIEW IF NOT EXISTS calls_by_hour AS
SELECT
    hour,
    customer,
    team,
    key,
    server,
    tool,
    code,
    toInt64(events_by_hour.events) - toInt64(corrected) AS calls,
    if(event = 'call.completed', calls, 0) AS completed,
    if(event IN ('call.failed', 'call.corrected'), calls, 0) AS failed,
    if(event = 'call.denied', calls, 0) AS denied,
    toInt64(events_by_hour.errors) AS errors,
    if(event = 'call.denied', 0, events_by_hour.charge) AS charge,
    latency
FROM events_by_hour
WHERE event IN ('call.completed', 'call.failed', 'call.denied', 'call.corrected');

-- Tokens of code mode by hour: the tokens spent, and the tokens that listing every definition would
-- have cost.
CREATE VIEW IF NOT EXISTS context_by_hour AS
SELECT hour, customer, team, key, events_by_hour.events AS calls, spent_tokens, classic_tokens
FROM events_by_hour
WHERE event = 'context.spent';

-- Approvals, one row each, from request to decision.
CREATE VIEW IF NOT EXISTS approvals AS
SELECT
    approval,
    minIf(at, event = 'approval.requested') AS requested_at,
    maxIf(at, event IN ('approval.granted', 'approval.rejected', 'approval.expired',
        'approval.withdrawn')) AS decided_at,
    any(customer) AS customer,
    anyIf(team, event = 'approval.requested') AS team,
    anyIf(user, event = 'approval.requested') AS user,
    anyIf(key, event = 'approval.requested') AS key,
    anyIf(server, event = 'approval.requested') AS server,
    anyIf(tool, event = 'approval.requested') AS tool,
    anyIf(rule, event = 'approval.requested') AS rule,
    anyIf(JSONExtractString(detail, 'cause'), event = 'approval.requested') AS cause,
    multiIf(
        countIf(event = 'approval.used') > 0, 'used',
        countIf(event = 'approval.rejected') > 0, 'rejected',
        countIf(event = 'approval.withdrawn') > 0, 'withdrawn',
        countIf(event = 'approval.expired') > 0, 'expired',
        countIf(event = 'approval.granted') > 0, 'granted',
        'waiting'
    ) AS state,
    anyIf(JSONExtractString(detail, 'by'), event IN ('approval.granted', 'approval.rejected')) AS by,
    anyIf(reason, event IN ('approval.granted', 'approval.rejected')) AS reason
FROM events
WHERE startsWith(event, 'approval.')
GROUP BY approval;
