-- Tokens of code mode, and calls charged as unknown, as columns of their own: a sum over them need
-- not read the whole event. They are worked out as rows are written, in the same part.
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

-- How many events there are of a customer in an hour, kept inside each part of the table: written,
-- merged, deduplicated and deleted with its rows, it cannot disagree with them.
ALTER TABLE events MODIFY SETTING
    deduplicate_merge_projection_mode = 'rebuild',
    lightweight_mutation_projection_mode = 'rebuild';
ALTER TABLE events ADD PROJECTION IF NOT EXISTS counted
(
    SELECT toStartOfHour(at), customer, count() GROUP BY toStartOfHour(at), customer
);
ALTER TABLE events MATERIALIZE PROJECTION IF EXISTS counted;

-- A customer's events of an hour, added up. A row holds while `added_up` says of its version that it
-- is made of as many events as there are: after late events it is not asked any more, but made anew.
CREATE TABLE IF NOT EXISTS sums
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
    corrected UInt64 COMMENT 'calls charged as unknown before, which ended after all',
    errors UInt64,
    spent_tokens Int64,
    classic_tokens Int64,
    latency AggregateFunction(quantilesTDigest(0.5, 0.9, 0.95, 0.99), Int64),
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, customer, key, server, tool, team, event, code);

CREATE TABLE IF NOT EXISTS added_up
(
    hour DateTime('UTC'),
    customer LowCardinality(String),
    events UInt64,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, customer);
