-- A customer's hours of a day, added up once more: what is asked about weeks need not read each hour.
-- `made_of` tells which versions of its hours' sums a day is made of.
CREATE TABLE IF NOT EXISTS sums_of_days
(
    day Date,
    scope LowCardinality(String),
    team LowCardinality(String),
    key LowCardinality(String),
    server LowCardinality(String),
    tool LowCardinality(String),
    fact LowCardinality(String),
    code LowCardinality(String),
    facts UInt64,
    charge Int64 COMMENT 'micro-dollars',
    corrected UInt64 COMMENT 'calls charged as unknown before, which ended after all',
    errors UInt64,
    spent_tokens Int64,
    classic_tokens Int64,
    latency AggregateFunction(quantilesTDigest(0.5, 0.9, 0.95, 0.99), Int64),
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(day)
ORDER BY (day, scope, key, server, tool, team, fact, code);

CREATE TABLE IF NOT EXISTS days_added_up
(
    day Date,
    scope LowCardinality(String),
    facts UInt64,
    made_of UInt64,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(day)
ORDER BY (day, scope);

-- Of each customer's days: those whose sums hold, and those whose hours all do (`whole`), of which
-- sums can be made.
CREATE VIEW IF NOT EXISTS days AS
SELECT
    there.day AS day,
    there.scope AS scope,
    there.facts AS facts,
    there.whole AS whole,
    there.made_of AS made_of,
    told.version AS version,
    there.whole AND told.facts = there.facts AND told.made_of = there.made_of AS holds
FROM
(
    SELECT toDate(hour) AS day, hours.scope AS scope, sum(hours.facts) AS facts,
        min(hours.holds) AS whole, sum(cityHash64(hour, hours.version)) AS made_of
    FROM hours
    GROUP BY day, scope
) AS there
LEFT JOIN
(
    SELECT day, scope, argMax(days_added_up.facts, days_added_up.version) AS facts,
        argMax(days_added_up.made_of, days_added_up.version) AS made_of,
        max(days_added_up.version) AS version
    FROM days_added_up
    GROUP BY day, scope
) AS told
ON there.day = told.day AND there.scope = told.scope;

-- Every kind of fact by day and by what it is about: days that are not added up, by their hours.
CREATE VIEW IF NOT EXISTS facts_by_day AS
SELECT day, scope, team, key, server, tool, fact, code, facts, charge, corrected, errors,
    spent_tokens, classic_tokens, latency
FROM sums_of_days
WHERE (day, scope, version) IN (SELECT day, scope, version FROM days WHERE holds)
UNION ALL
SELECT toDate(hour) AS day, scope, team, key, server, tool, fact, code, facts, charge, corrected,
    errors, spent_tokens, classic_tokens, latency
FROM facts_by_hour
WHERE (toDate(hour), scope) IN (SELECT day, scope FROM days WHERE NOT holds);

-- Calls by day: how they ended, what they cost, how long the server took.
CREATE VIEW IF NOT EXISTS calls_by_day AS
SELECT
    day,
    scope,
    team,
    key,
    server,
    tool,
    code,
    toInt64(facts_by_day.facts) - toInt64(corrected) AS calls,
    if(fact = 'call.completed', calls, 0) AS completed,
    if(fact IN ('call.failed', 'call.corrected'), calls, 0) AS failed,
    if(fact = 'call.denied', calls, 0) AS denied,
    toInt64(facts_by_day.errors) AS errors,
    if(fact = 'call.denied', 0, facts_by_day.charge) AS charge,
    latency
FROM facts_by_day
WHERE fact IN ('call.completed', 'call.failed', 'call.denied', 'call.corrected');
