-- The stream of an event. Positions restart when the stream is re-created, and a transparency log
-- covers one stream.
ALTER TABLE events ADD COLUMN IF NOT EXISTS stream LowCardinality(String) AFTER sent;

-- Signed checkpoints of each customer's transparency log (C2SP tlog-checkpoint).
CREATE TABLE IF NOT EXISTS checkpoints
(
    customer LowCardinality(String),
    stream LowCardinality(String),
    size UInt64 COMMENT 'number of events in the log',
    at DateTime('UTC'),
    to UInt64 COMMENT 'stream sequence of the last message in the log',
    edge Array(String) COMMENT 'roots of the perfect subtrees, base64, the largest first',
    note String
)
ENGINE = ReplacingMergeTree
ORDER BY (customer, stream, size, at)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1;
