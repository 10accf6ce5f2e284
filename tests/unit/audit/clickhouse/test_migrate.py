"""Migrations: applied in order, once each, and unchanged since."""

import re

import pytest

from toolbus_audit.clickhouse.migrate import (
    CONTRACT,
    Migration,
    MigrationError,
    migrate,
    migrations,
    pending,
    reject_contracted,
)

FIRST = Migration(1, "first", "-- why\nCREATE TABLE a (x Int8);\n\nCREATE TABLE b (x Int8);\n")
SECOND = Migration(2, "second", "ALTER TABLE a ADD COLUMN y Int8;\n")
REMOVES = re.compile(
    r"\b(DROP|RENAME|TRUNCATE|DETACH|EXCHANGE|DELETE|CLEAR|MODIFY COLUMN|MODIFY QUERY"
    r"|REPLACE TABLE)\b",
    re.IGNORECASE,
)
# It replaces the expressions of two materialized columns and keeps their names and types.
BEFORE_THE_RULE = {"cheaper_bytes"}


def test_only_unapplied_migrations_are_pending() -> None:
    assert pending({}, [FIRST, SECOND]) == [FIRST, SECOND]
    assert pending({1: FIRST.digest}, [FIRST, SECOND]) == [SECOND]


def test_a_migration_changed_since_it_was_applied_is_an_error() -> None:
    with pytest.raises(MigrationError, match="0001 was applied with different content"):
        pending({1: "another digest"}, [FIRST, SECOND])


def test_migrations_of_a_newer_version_do_not_stop_an_older_one() -> None:
    assert pending({1: FIRST.digest, 2: SECOND.digest, 3: "unknown"}, [FIRST, SECOND]) == []


def test_a_migration_that_removes_something_says_so_in_its_name() -> None:
    removing = {
        migration.name
        for migration in migrations()
        if any(REMOVES.search(statement) for statement in migration.statements())
    }
    assert {each for each in removing if not each.startswith(CONTRACT)} == BEFORE_THE_RULE


def test_a_version_rejects_tables_from_which_a_newer_one_removed_something() -> None:
    applied = {1: "first", 2: "second", 3: "expand_prices"}
    reject_contracted(applied, [FIRST, SECOND])
    removed = {**applied, 4: "contract_prices"}
    with pytest.raises(MigrationError, match=r"\(0004_contract_prices\)\. Start"):
        reject_contracted(removed, [FIRST, SECOND])
    reject_contracted(removed, [FIRST, SECOND, Migration(4, "contract_prices", "")])


def test_a_file_is_split_into_statements_without_comments() -> None:
    first, second = FIRST.statements()
    assert first == "CREATE TABLE a (x Int8)"
    assert second.startswith("CREATE TABLE b")


def test_file_numbers_are_unique_and_each_file_is_idempotent() -> None:
    known = migrations()
    assert len({migration.version for migration in known}) == len(known)
    for migration in known:
        for statement in migration.statements():
            repeatable = (
                "IF NOT EXISTS", "IF EXISTS", "OR REPLACE", "ALTER TABLE events MODIFY SETTING",
                "INSERT INTO late_outcomes",  # a table that replaces equal rows
            )  # fmt: skip
            assert any(words in statement for words in repeatable)


def test_a_migration_is_recorded_after_its_statements() -> None:
    executed: list[str] = []
    versions = migrate(executed.append, lambda _sql: [])
    assert versions == [migration.version for migration in migrations()]
    assert executed[0].startswith("CREATE TABLE IF NOT EXISTS migrations")
    assert executed[-1].startswith("INSERT INTO migrations")
    assert migrations()[-1].digest in executed[-1]
