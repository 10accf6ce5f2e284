-- The new start of each customer's log after retention deleted the events before it.
CREATE TABLE IF NOT EXISTS log_truncations
(
    customer LowCardinality(String),
    stream LowCardinality(String),
    size UInt64 COMMENT 'number of events deleted from the start of the log',
    to UInt64 COMMENT 'stream sequence of the last deleted message',
    at DateTime('UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (customer, stream, size)
SETTINGS fsync_after_insert = 1;
