"""Migrations rewritten for a cluster, parsed by the engine, in order."""

from collections.abc import Callable, Iterator
from typing import Any

import chdb
import pytest

from toolbus_audit.clickhouse.cluster_ddl import ClusterError, clustered, database, tables
from toolbus_audit.clickhouse.migrate import MigrationError, for_cluster, migrate, migrations

KNOWN = frozenset({"events", "spending"})
connect: Callable[[str], Any] = chdb.connect  # chdb has no types
EVENTS = """CREATE TABLE IF NOT EXISTS events
(
    id String, at DateTime64(6, 'UTC'), INDEX by_id id TYPE bloom_filter GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (toStartOfHour(at), id)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1"""


@pytest.fixture(scope="module")
def canonical() -> Iterator[Callable[[str], str]]:
    """Yield a function that formats a statement with the engine's parser."""
    handle = connect(":memory:")

    def parsed(sql: str) -> str:
        quoted = sql.replace("\\", "\\\\").replace("'", "\\'")
        result = handle.query(f"SELECT formatQuerySingleLine('{quoted}')", "TSVRaw")
        return str(result).strip()

    yield parsed
    handle.close()


def test_a_table_becomes_a_replicated_and_a_distributed_table(
    canonical: Callable[[str], str],
) -> None:
    local, over = map(canonical, clustered(EVENTS, "prod", KNOWN))
    assert local.startswith("CREATE TABLE IF NOT EXISTS events_local ON CLUSTER prod (")
    assert "ENGINE = ReplicatedReplacingMergeTree PARTITION BY" in local
    assert "SETTINGS replicated_deduplication_window = 1000, fsync_after_insert = 1" in local
    assert over == (
        "CREATE TABLE IF NOT EXISTS events ON CLUSTER prod AS events_local ENGINE = Distributed("
        "prod, currentDatabase(), events_local, cityHash64(toStartOfHour(at), id))"
    )


def test_the_sharding_key_follows_the_sorting_key() -> None:
    made = "CREATE TABLE IF NOT EXISTS t (x Int8) ENGINE = MergeTree ORDER BY {}"
    assert clustered(made.format("x"), "c", KNOWN)[1].endswith("t_local, cityHash64(x))")
    assert clustered(made.format("tuple()"), "c", KNOWN)[1].endswith("t_local, rand())")


def test_a_column_is_added_to_both_tables_and_an_index_to_the_replicated_one() -> None:
    column = clustered("ALTER TABLE events ADD COLUMN IF NOT EXISTS x Int8 AFTER id", "c", KNOWN)
    assert [each.split(" ADD")[0] for each in column] == [
        "ALTER TABLE events_local ON CLUSTER `c`",
        "ALTER TABLE events ON CLUSTER `c`",
    ]
    index = "ALTER TABLE events ADD INDEX IF NOT EXISTS i id TYPE minmax"
    assert len(clustered(index, "c", KNOWN)) == 1


def test_a_view_reads_all_shards_and_a_materialized_view_its_own_shard() -> None:
    (view,) = clustered("CREATE VIEW IF NOT EXISTS v AS SELECT * FROM events", "c", KNOWN)
    assert view == "CREATE VIEW IF NOT EXISTS v ON CLUSTER `c` AS SELECT * FROM events"
    (filled,) = clustered(
        "CREATE MATERIALIZED VIEW IF NOT EXISTS m TO spending AS SELECT id FROM events", "c", KNOWN
    )
    assert filled.endswith("ON CLUSTER `c` TO spending_local AS SELECT id FROM events_local")


def test_a_materialized_view_with_a_table_has_both_tables_too() -> None:
    made = (
        "CREATE MATERIALIZED VIEW IF NOT EXISTS hours ENGINE = SummingMergeTree ORDER BY hour"
        " AS SELECT toStartOfHour(at) AS hour, count() AS n FROM events GROUP BY hour"
    )
    known = tables([EVENTS, made])
    assert known == {"events", "hours"}
    local, over = clustered(made, "c", known)
    assert local.startswith("CREATE MATERIALIZED VIEW IF NOT EXISTS hours_local ON CLUSTER `c` E")
    assert "ENGINE = ReplicatedSummingMergeTree" in local
    assert "FROM events_local GROUP BY" in local
    assert over.endswith("Distributed(`c`, currentDatabase(), hours_local, cityHash64(hour))")


def test_the_distributed_table_is_dropped_first() -> None:
    assert clustered("DROP TABLE IF EXISTS events", "c", KNOWN) == [
        "DROP TABLE IF EXISTS events ON CLUSTER `c`",
        "DROP TABLE IF EXISTS events_local ON CLUSTER `c`",
    ]


def test_rows_are_written_and_read_through_the_distributed_tables() -> None:
    filling = "INSERT INTO spending SELECT id FROM events"
    assert clustered(filling, "c", KNOWN) == [filling]


def test_an_unsupported_statement_is_rejected_and_not_run_on_one_server() -> None:
    with pytest.raises(ClusterError, match="OPTIMIZE"):
        clustered("OPTIMIZE TABLE events FINAL", "c", KNOWN)
    with pytest.raises(MigrationError):
        for_cluster(["OPTIMIZE TABLE events FINAL"], "c")


def test_every_migration_can_be_run_on_a_cluster_and_parsed(
    canonical: Callable[[str], str],
) -> None:
    every = [each for migration in migrations() for each in migration.statements()]
    for statement in for_cluster(every, "prod"):
        result = canonical(statement)
        assert "ON CLUSTER prod" in result or result.startswith("INSERT INTO"), result


def test_tables_of_a_cluster_are_created_in_order_and_recorded() -> None:
    executed: list[str] = []
    versions = migrate(executed.append, lambda _sql: [], "prod")
    assert versions == [each.version for each in migrations()]
    order = [each.split(" ON CLUSTER")[0].split()[-1] for each in executed if "ON CLUSTER" in each]
    assert order[:4] == ["migrations_local", "migrations", "events_local", "events"]
    assert order.index("events") < order.index("runs")
    recorded = [each for each in executed if each.startswith("INSERT INTO migrations")]
    assert len(recorded) == len(migrations())


def test_without_a_cluster_the_files_run_unchanged() -> None:
    every = [each for migration in migrations() for each in migration.statements()]
    assert for_cluster(every, "") == every
    assert database("toolbus", "") == "CREATE DATABASE IF NOT EXISTS `toolbus`"
    assert database("toolbus", "prod").endswith("`toolbus` ON CLUSTER `prod`")


def test_rows_are_deleted_on_every_shard_before_the_statement_returns(
    canonical: Callable[[str], str],
) -> None:
    request = "ALTER TABLE events DELETE WHERE line = 1 SETTINGS mutations_sync = 2"
    (result,) = map(canonical, clustered(request, "prod", KNOWN))
    assert result.startswith("ALTER TABLE events_local ON CLUSTER prod")
    assert result.endswith("SETTINGS mutations_sync = 2")
