-- One row per event. The sorting key begins with the hour because queries select a time range
-- first, then a customer and a key. It ends with the event's id, so that a replacing merge removes
-- only duplicates of the same event.
CREATE TABLE IF NOT EXISTS events
(
    stream_seq UInt64 CODEC(Delta, LZ4),
    line UInt16,
    event LowCardinality(String),
    id String,
    at DateTime64(6, 'UTC') CODEC(Delta, LZ4),
    producer String,
    seq UInt64,
    customer LowCardinality(String),
    team String,
    key LowCardinality(String),
    call_id String,
    parent_id String,
    trace_id String,
    server LowCardinality(String),
    tool LowCardinality(String),
    code String,
    reason String,
    charge Int64 COMMENT 'micro-dollars',
    latency_us Int64,
    is_error Bool,
    sent Bool,
    detail String CODEC(ZSTD(1)) COMMENT 'the whole event as JSON',
    INDEX by_position stream_seq TYPE minmax GRANULARITY 1,
    INDEX by_call call_id TYPE bloom_filter GRANULARITY 1,
    INDEX by_id id TYPE bloom_filter GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (toStartOfHour(at), customer, key, at, id)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1;

CREATE TABLE IF NOT EXISTS dead_letters
(
    at DateTime64(6, 'UTC') COMMENT 'when audit failed to parse the line',
    stream_seq UInt64,
    line UInt16,
    subject String,
    reason String,
    raw String,
    digest String COMMENT 'SHA-256 of the line, in hex'
)
ENGINE = MergeTree
ORDER BY (at, stream_seq, line)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1;
