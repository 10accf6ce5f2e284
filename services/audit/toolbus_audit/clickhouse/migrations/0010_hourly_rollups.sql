-- Tokens of code mode and calls charged as unknown, as materialized columns: a sum over them does
-- not read the event's JSON.
ALTER TABLE events ADD COLUMN IF NOT EXISTS spent_tokens Int64 MATERIALIZED if(
    event = 'context.spent',
    JSONExtractInt(detail, 'own_tokens') + JSONExtractInt(detail, 'request_tokens')
        + JSONExtractInt(detail, 'answer_tokens'),
    0
);
ALTER TABLE events ADD COLUMN IF NOT EXISTS classic_tokens Int64 MATERIALIZED if(
    event = 'context.spent',
    arraySum(tupleElement(JSONExtractKeysAndValues(detail, 'classic', 'Int64'), 2)),
    0
);
ALTER TABLE events ADD COLUMN IF NOT EXISTS is_unknown Bool MATERIALIZED
    event = 'call.failed' AND endsWith(id, '.unknown');
ALTER TABLE events ADD INDEX IF NOT EXISTS by_unknown is_unknown TYPE minmax GRANULARITY 1;

-- The number of events per customer and hour. A projection is written, merged, deduplicated and
-- deleted together with the rows of its part, so it always agrees with them.
ALTER TABLE events MODIFY SETTING
    deduplicate_merge_projection_mode = 'rebuild',
    lightweight_mutation_projection_mode = 'rebuild';
ALTER TABLE events ADD PROJECTION IF NOT EXISTS counted
(
    SELECT toStartOfHour(at), customer, count() GROUP BY toStartOfHour(at), customer
);
ALTER TABLE events MATERIALIZE PROJECTION IF EXISTS counted;

-- Roll-up of a customer's events per hour. A version is valid while its row in `rollup_hours_done`
-- counts as many events as the hour has. After late events it is ignored and computed again.
CREATE TABLE IF NOT EXISTS rollup_hours
(
    hour DateTime('UTC'),
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
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, customer, key, server, tool, team, event, code);

CREATE TABLE IF NOT EXISTS rollup_hours_done
(
    hour DateTime('UTC'),
    customer LowCardinality(String),
    events UInt64,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, customer);
