-- The id of this store. An installation has one store: audit compares the id with the one on the bus.
-- Replicas that start together may each insert an id; the bus then has one of them.
CREATE TABLE IF NOT EXISTS store_identity
(
    id String,
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = MergeTree
ORDER BY id;
