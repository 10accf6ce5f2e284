"""Settings of ClickHouse's inserts, and of statements on a cluster."""

INSERT_SECONDS = 8.0  # after which ClickHouse aborts an insert
INSERT_SETTINGS = {
    "async_insert": 0,
    "max_execution_time": INSERT_SECONDS,
    "max_insert_threads": 1,
    "max_threads": 1,
    "input_format_parallel_parsing": 0,
    # Columns are sent as `Int64` and `String` and cast to their own types. This is the default; a
    # server's profile may have turned it off.
    "input_format_native_allow_types_conversion": 1,
    "max_partitions_per_insert_block": 0,
    "optimize_on_insert": 0,
}
# On a cluster an insert ends when every shard has its rows. Queries skip replicas that lag behind:
# rows that such a replica does not have would seem to be missing and be written again.
CLUSTER_SETTINGS = {
    "distributed_product_mode": "global",
    "distributed_foreground_insert": 1,
    "max_replica_delay_for_distributed_queries": 5,
    "fallback_to_stale_replicas_for_distributed_queries": 0,
}
