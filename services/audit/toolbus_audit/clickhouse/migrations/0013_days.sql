-- A customer's hours of a day, added up once more: what is asked about weeks need not read each hour.
-- `made_of` tells which versions of its hours' sums a day is made of.
CREATE TABLE IF NOT EXISTS sums_of_days
(
    day Date,
    customer LowCardinality(String),
    team LowCardinality(String),
    key LowCardinality(String),
    server LowCardinality(String),
    tool LowCardinality(String),
    event LowCardinality(String),
    code LowCardinality(String),
    events UInt64,
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
ORDER BY (day, customer, key, server, tool, team, event, code);

CREATE TABLE IF NOT EXISTS days_added_up
(
    day Date,
    customer LowCardinality(String),
    events UInt64,
    made_of UInt64,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(day)
ORDER BY (day, customer);

-- Of each customer's days: those whose sums hold, and those whose hours all do (`whole`), of which
-- sums can be made.
CREATE VIEW IF NOT EXISTS days AS
SELECT
    there.day AS day,
    there.customer AS customer,
    there.events AS events,
    there.whole AS whole,
    there.made_of AS made_of,
    told.version AS version,
    there.whole AND told.events = there.events AND told.made_of = there.made_of AS holds
FROM
(
    SELECT toDate(hour) AS day, hours.customer AS customer, sum(hours.events) AS events,
        min(hours.holds) AS whole, sum(cityHash64(hour, hours.version)) AS made_of
    FROM hours
    GROUP BY day, customer
) AS there
LEFT JOIN
(
    SELECT day, customer, argMax(days_added_up.events, days_added_up.version) AS events,
        argMax(days_added_up.made_of, days_added_up.version) AS made_of,
        max(days_added_up.version) AS version
    FROM days_added_up
    GROUP BY day, customer
) AS told
ON there.day = told.day AND there.customer = told.customer;

-- Every kind of event by day and by what it is about: days that are not added up, by their hours.
CREATE VIEW IF NOT EXISTS events_by_day AS
SELECT day, customer, team, key, server, tool, event, code, events, charge, corrected, errors,
    spent_tokens, classic_tokens, latency
FROM sums_of_days
WHERE (day, customer, version) IN (SELECT day, customer, version FROM days WHERE holds)
UNION ALL
SELECT toDate(hour) AS day, customer, team, key, server, tool, event, code, events, charge, corrected,
    errors, spent_tokens, classic_tokens, latency
FROM events_by_hour
WHERE (toDate(hour), customer) IN (SELECT day, customer FROM days WHERE NOT holds);

-- Calls by day: how they ended, what they cost, how long the server took.
CREATE VIEW IF NOT EXISTS calls_by_day AS
SELECT
    day,
    customer,
    team,
    key,
    server,
    tool,
    code,
    toInt64(events_by_day.events) - toInt64(corrected) AS calls,
    if(event = 'call.completed', calls, 0) AS completed,
    if(event IN ('call.failed', 'call.corrected'), calls, 0) AS failed,
    if(event = 'call.denied', calls, 0) AS denied,
    toInt64(events_by_day.errors) AS errors,
    if(event = 'call.denied', 0, events_by_day.charge) AS charge,
    latency
FROM events_by_day
WHERE event IN ('call.completed', 'call.failed', 'call.denied', 'call.corrected');
