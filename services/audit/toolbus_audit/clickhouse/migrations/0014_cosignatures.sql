-- Checkpoints with the cosignature of one witness each (C2SP tlog-cosignature).
CREATE TABLE IF NOT EXISTS cosignatures
(
    customer LowCardinality(String),
    stream LowCardinality(String),
    size UInt64 COMMENT 'number of events in the checkpoint',
    at DateTime('UTC') COMMENT 'when the checkpoint was signed',
    witness LowCardinality(String),
    note String
)
ENGINE = ReplacingMergeTree
ORDER BY (customer, stream, size, at, witness)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1;
