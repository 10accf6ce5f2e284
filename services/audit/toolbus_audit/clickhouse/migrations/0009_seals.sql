-- The stream an event came from: positions begin anew with a stream, and a seal covers one stream.
ALTER TABLE events ADD COLUMN IF NOT EXISTS stream LowCardinality(String) AFTER sent;

-- Signed statements of how far each customer's log has come (C2SP tlog-checkpoint).
CREATE TABLE IF NOT EXISTS checkpoints
(
    customer LowCardinality(String),
    stream LowCardinality(String),
    size UInt64 COMMENT 'events sealed so far',
    at DateTime('UTC'),
    to UInt64 COMMENT 'the last message of the stream among them',
    edge Array(String) COMMENT 'roots of the perfect trees, base64, the largest first',
    note String
)
ENGINE = ReplacingMergeTree
ORDER BY (customer, stream, size, at)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1;
