-- Of each customer's hours: those whose sums hold, and those to be added up anew.
CREATE VIEW IF NOT EXISTS hours AS
SELECT
    there.hour AS hour,
    there.customer AS customer,
    there.events AS events,
    told.version AS version,
    told.version > 0 AND told.events = there.events AS holds
FROM
(
    SELECT toStartOfHour(at) AS hour, events.customer AS customer, count() AS events
    FROM events
    GROUP BY hour, customer
) AS there
LEFT JOIN
(
    SELECT hour, customer, argMax(added_up.events, added_up.version) AS events,
        max(added_up.version) AS version
    FROM added_up
    GROUP BY hour, customer
) AS told
ON there.hour = told.hour AND there.customer = told.customer;

-- The hours whose sums do not hold, added up from the events. An outcome does not say its team: it is
-- given the one its key had that hour, or up to a day before. A call that ended after it was charged
-- as unknown is taken back in the hour in which it ended (`call.corrected`).
CREATE VIEW IF NOT EXISTS sums_anew AS
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

-- Every kind of event by hour and by what it is about. `latency` is a state: read it with
-- quantilesTDigestMerge(0.5, 0.9, 0.95, 0.99)(latency).
CREATE VIEW IF NOT EXISTS events_by_hour AS
SELECT hour, customer, team, key, server, tool, event, code, events, charge, corrected, errors,
    spent_tokens, classic_tokens, latency
FROM sums
WHERE (hour, customer, version) IN (SELECT hour, customer, version FROM hours WHERE holds)
UNION ALL
SELECT hour, customer, team, key, server, tool, event, code, events, charge, corrected, errors,
    spent_tokens, classic_tokens, latency
FROM sums_anew;

-- Calls by hour: how they ended, what they cost, how long the server took.
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

-- Tokens of code mode by hour: spent, and what every definition would have cost instead.
CREATE VIEW IF NOT EXISTS context_by_hour AS
SELECT hour, customer, team, key, events_by_hour.events AS calls, spent_tokens, classic_tokens
FROM events_by_hour
WHERE event = 'context.spent';

-- Approvals, from the question to the answer.
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
