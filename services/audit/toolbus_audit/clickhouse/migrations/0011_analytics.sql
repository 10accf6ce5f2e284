-- Of each customer's hours: those whose sums hold, and those to be added up anew.
CREATE VIEW IF NOT EXISTS hours AS
SELECT
    there.hour AS hour,
    there.scope AS scope,
    there.facts AS facts,
    told.version AS version,
    told.version > 0 AND told.facts = there.facts AS holds
FROM
(
    SELECT toStartOfHour(at) AS hour, facts.scope AS scope, count() AS facts
    FROM facts
    GROUP BY hour, scope
) AS there
LEFT JOIN
(
    SELECT hour, scope, argMax(added_up.facts, added_up.version) AS facts,
        max(added_up.version) AS version
    FROM added_up
    GROUP BY hour, scope
) AS told
ON there.hour = told.hour AND there.scope = told.scope;

-- The hours whose sums do not hold, added up from the facts. An outcome does not say its team: it is
-- given the one its key had that hour, or up to a day before. A call that ended after it was charged
-- as unknown is taken back in the hour in which it ended (`call.corrected`).
CREATE VIEW IF NOT EXISTS sums_anew AS
SELECT
    said.hour AS hour,
    said.scope AS scope,
    if(said.team != '', said.team, teams.team) AS team,
    said.key AS key,
    said.server AS server,
    said.tool AS tool,
    said.fact AS fact,
    said.code AS code,
    said.facts AS facts,
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
        facts.scope AS scope,
        toString(facts.team) AS team,
        facts.key AS key,
        facts.server AS server,
        facts.tool AS tool,
        facts.fact AS fact,
        facts.code AS code,
        count() AS facts,
        sum(facts.charge) AS charge,
        toUInt64(0) AS corrected,
        countIf(facts.is_error) AS errors,
        sum(facts.spent_tokens) AS spent_tokens,
        sum(facts.classic_tokens) AS classic_tokens,
        quantilesTDigestState(0.5, 0.9, 0.95, 0.99)(facts.latency_us) AS latency
    FROM facts
    WHERE (toStartOfHour(at), facts.scope) IN (SELECT hour, scope FROM hours WHERE NOT holds)
    GROUP BY hour, scope, team, key, server, tool, fact, code
    UNION ALL
    SELECT
        toStartOfHour(ended.at) AS hour,
        ended.scope AS scope,
        '' AS team,
        ended.key AS key,
        ended.server AS server,
        ended.tool AS tool,
        'call.corrected' AS fact,
        '' AS code,
        toUInt64(0) AS facts,
        -sum(unknown.charge) AS charge,
        count() AS corrected,
        toUInt64(0) AS errors,
        toInt64(0) AS spent_tokens,
        toInt64(0) AS classic_tokens,
        arrayReduce('quantilesTDigestState(0.5, 0.9, 0.95, 0.99)', emptyArrayInt64()) AS latency
    FROM
    (
        SELECT call_id, min(at) AS at, any(scope) AS scope, any(key) AS key,
            any(server) AS server, any(tool) AS tool
        FROM facts
        WHERE fact IN ('call.completed', 'call.failed') AND is_unknown = false
            AND call_id IN (SELECT call_id FROM facts WHERE is_unknown = true)
        GROUP BY call_id
    ) AS ended
    INNER JOIN
    (
        SELECT call_id, any(charge) AS charge FROM facts WHERE is_unknown = true GROUP BY call_id
    ) AS unknown
    ON ended.call_id = unknown.call_id
    WHERE (toStartOfHour(ended.at), ended.scope) IN (SELECT hour, scope FROM hours WHERE NOT holds)
    GROUP BY hour, scope, team, key, server, tool, fact, code
) AS said
LEFT JOIN
(
    SELECT
        known.hour + toIntervalHour(later) AS hour,
        known.scope AS scope,
        known.key AS key,
        argMin(known.team, (later, -toInt64(known.facts))) AS team
    FROM
    (
        SELECT toStartOfHour(at) AS hour, facts.scope AS scope, facts.key AS key,
            facts.team AS team, count() AS facts
        FROM facts
        WHERE facts.team != '' AND toStartOfHour(at) >= (
            SELECT minOrNull(hour) - toIntervalDay(1) FROM hours WHERE NOT holds
        )
        GROUP BY hour, scope, key, team
    ) AS known
    ARRAY JOIN range(25) AS later
    GROUP BY hour, scope, key
) AS teams
ON said.scope = teams.scope AND said.key = teams.key AND said.hour = teams.hour;

-- Every kind of fact by hour and by what it is about. `latency` is a state: read it with
-- quantilesTDigestMerge(0.5, 0.9, 0.95, 0.99)(latency).
CREATE VIEW IF NOT EXISTS facts_by_hour AS
SELECT hour, scope, team, key, server, tool, fact, code, facts, charge, corrected, errors,
    spent_tokens, classic_tokens, latency
FROM sums
WHERE (hour, scope, version) IN (SELECT hour, scope, version FROM hours WHERE holds)
UNION ALL
SELECT hour, scope, team, key, server, tool, fact, code, facts, charge, corrected, errors,
    spent_tokens, classic_tokens, latency
FROM sums_anew;

-- Calls by hour: how they ended, what they cost, how long the server took.
CREATE VIEW IF NOT EXISTS calls_by_hour AS
SELECT
    hour,
    scope,
    team,
    key,
    server,
    tool,
    code,
    toInt64(facts_by_hour.facts) - toInt64(corrected) AS calls,
    if(fact = 'call.completed', calls, 0) AS completed,
    if(fact IN ('call.failed', 'call.corrected'), calls, 0) AS failed,
    if(fact = 'call.denied', calls, 0) AS denied,
    toInt64(facts_by_hour.errors) AS errors,
    if(fact = 'call.denied', 0, facts_by_hour.charge) AS charge,
    latency
FROM facts_by_hour
WHERE fact IN ('call.completed', 'call.failed', 'call.denied', 'call.corrected');

-- Tokens of code mode by hour: spent, and what every definition would have cost instead.
CREATE VIEW IF NOT EXISTS context_by_hour AS
SELECT hour, scope, team, key, facts_by_hour.facts AS calls, spent_tokens, classic_tokens
FROM facts_by_hour
WHERE fact = 'context.spent';

-- Approvals, from the question to the answer.
CREATE VIEW IF NOT EXISTS approvals AS
SELECT
    approval,
    minIf(at, fact = 'approval.asked') AS asked_at,
    maxIf(at, fact IN ('approval.granted', 'approval.rejected', 'approval.expired',
        'approval.withdrawn')) AS decided_at,
    any(scope) AS scope,
    anyIf(team, fact = 'approval.asked') AS team,
    anyIf(user, fact = 'approval.asked') AS user,
    anyIf(key, fact = 'approval.asked') AS key,
    anyIf(server, fact = 'approval.asked') AS server,
    anyIf(tool, fact = 'approval.asked') AS tool,
    anyIf(rule, fact = 'approval.asked') AS rule,
    anyIf(JSONExtractString(detail, 'cause'), fact = 'approval.asked') AS cause,
    multiIf(
        countIf(fact = 'approval.used') > 0, 'used',
        countIf(fact = 'approval.rejected') > 0, 'rejected',
        countIf(fact = 'approval.withdrawn') > 0, 'withdrawn',
        countIf(fact = 'approval.expired') > 0, 'expired',
        countIf(fact = 'approval.granted') > 0, 'granted',
        'waiting'
    ) AS state,
    anyIf(JSONExtractString(detail, 'by'), fact IN ('approval.granted', 'approval.rejected')) AS by,
    anyIf(reason, fact IN ('approval.granted', 'approval.rejected')) AS reason
FROM facts
WHERE startsWith(fact, 'approval.')
GROUP BY approval;
