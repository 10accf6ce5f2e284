-- Roll-up of a customer's hours per day, so that a query over weeks does not read every hour.
-- `source_hash` identifies the versions of the hourly roll-ups that a day was computed from.
CREATE TABLE IF NOT EXISTS rollup_days
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
    corrected UInt64 COMMENT 'calls charged as unknown whose outcome arrived later',
    errors UInt64,
    spent_tokens Int64,
    classic_tokens Int64,
    latency AggregateFunction(quantilesTDigest(0.5, 0.9, 0.95, 0.99), Int64),
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(day)
ORDER BY (day, customer, key, server, tool, team, event, code);

CREATE TABLE IF NOT EXISTS rollup_days_done
(
    day Date,
    customer LowCardinality(String),
    events UInt64,
    source_hash UInt64,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(day)
ORDER BY (day, customer);

-- The days of each customer, and whether their roll-up is valid. A day is `complete`, and can be
-- rolled up, when the roll-ups of all its hours are valid.
CREATE VIEW IF NOT EXISTS days AS
SELECT
    counted.day AS day,
    counted.customer AS customer,
    counted.events AS events,
    counted.complete AS complete,
    counted.source_hash AS source_hash,
    done.version AS version,
    counted.complete AND done.events = counted.events AND done.source_hash = counted.source_hash AS valid
FROM
(
    SELECT toDate(hour) AS day, hours.customer AS customer, sum(hours.events) AS events,
        min(hours.valid) AS complete, sum(cityHash64(hour, hours.version)) AS source_hash
    FROM hours
    GROUP BY day, customer
) AS counted
LEFT JOIN
(
    SELECT day, customer, argMax(rollup_days_done.events, rollup_days_done.version) AS events,
        argMax(rollup_days_done.source_hash, rollup_days_done.version) AS source_hash,
        max(rollup_days_done.version) AS version
    FROM rollup_days_done
    GROUP BY day, customer
) AS done
ON counted.day = done.day AND counted.customer = done.customer;

-- All events by day. Days without a valid roll-up are computed from their hours.
CREATE VIEW IF NOT EXISTS events_by_day AS
SELECT day, customer, team, key, server, tool, event, code, events, charge, corrected, errors,
    spent_tokens, classic_tokens, latency
FROM rollup_days
WHERE (day, customer, version) IN (SELECT day, customer, version FROM days WHERE valid)
UNION ALL
SELECT toDate(hour) AS day, customer, team, key, server, tool, event, code, events, charge, corrected,
    errors, spent_tokens, classic_tokens, latency
FROM events_by_hour
WHERE (toDate(hour), customer) IN (SELECT day, customer FROM days WHERE NOT valid);

-- Calls by day: outcomes, charges in micro-dollars, latency of the server.
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
