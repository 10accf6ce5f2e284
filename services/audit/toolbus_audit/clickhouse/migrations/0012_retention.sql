-- Where each customer's log begins now: what lies before was past its time, and is deleted.
CREATE TABLE IF NOT EXISTS cuts
(
    customer LowCardinality(String),
    stream LowCardinality(String),
    size UInt64 COMMENT 'events deleted so far, from the log''s beginning',
    to UInt64 COMMENT 'the last message of the stream among them',
    at DateTime('UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (customer, stream, size)
SETTINGS fsync_after_insert = 1;
