"""Migrations: applied in order, once each, and unchanged since."""

import pytest

from toolbus_audit.clickhouse.migrate import Migration, MigrationError, migrate, migrations, pending

FIRST = Migration(1, "first", "-- why\nCREATE TABLE a (x Int8);\n\nCREATE TABLE b (x Int8);\n")
SECOND = Migration(2, "second", "ALTER TABLE a ADD COLUMN y Int8;\n")


def test_only_what_was_not_applied_is_pending() -> None:
    assert pending({}, [FIRST, SECOND]) == [FIRST, SECOND]
    assert pending({1: FIRST.digest}, [FIRST, SECOND]) == [SECOND]


def test_a_migration_applied_in_another_form_stops_everything() -> None:
    with pytest.raises(MigrationError, match="0001 was applied with different content"):
        pending({1: "another digest"}, [FIRST, SECOND])


def test_a_newer_programs_migrations_do_not_stop_an_older_one() -> None:
    assert pending({1: FIRST.digest, 2: SECOND.digest, 3: "unknown"}, [FIRST, SECOND]) == []


def test_a_files_statements_come_one_by_one_without_comments() -> None:
    first, second = FIRST.statements()
    assert first == "CREATE TABLE a (x Int8)"
    assert second.startswith("CREATE TABLE b")


def test_no_two_files_have_one_number_and_each_may_be_applied_twice() -> None:
    known = migrations()
    assert len({migration.version for migration in known}) == len(known)
    for migration in known:
        for statement in migration.statements():
            repeatable = (
                "IF NOT EXISTS", "IF EXISTS", "OR REPLACE", "ALTER TABLE events MODIFY SETTING",
            )  # fmt: skip
            assert any(words in statement for words in repeatable)


def test_what_was_applied_is_recorded_after_its_statements() -> None:
    executed: list[str] = []
    versions = migrate(executed.append, lambda _sql: [])
    assert versions == [migration.version for migration in migrations()]
    assert executed[0].startswith("CREATE TABLE IF NOT EXISTS migrations")
    assert executed[-1].startswith("INSERT INTO migrations")
    assert migrations()[-1].digest in executed[-1]
