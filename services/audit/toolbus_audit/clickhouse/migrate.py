"""Migrations: numbered SQL files, each applied once, in order, and recorded in the database."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from toolbus_audit.clickhouse.cluster_ddl import ClusterError, clustered, tables

_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_COMMENT = re.compile(r"^--.*$", re.MULTILINE)
CONTRACT = "contract_"  # begins the name of a migration that removes what older versions use

RECORD = """
CREATE TABLE IF NOT EXISTS migrations
(version UInt32, name String, digest String, at DateTime DEFAULT now())
ENGINE = ReplacingMergeTree ORDER BY version
"""


class MigrationError(Exception):
    """The tables of the store do not match this version; the message describes the difference."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. Its statements are idempotent, because a crash may occur between two statements."""

    version: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """SHA-256 of the file, to detect that an applied file was edited."""
        return sha256(self.sql.encode()).hexdigest()

    def statements(self) -> list[str]:
        """Return the statements without comments."""
        parts = _COMMENT.sub("", self.sql).split(";\n")
        return [part.strip() for part in parts if part.strip()]


def migrations() -> list[Migration]:
    """Return every migration of this version, in order."""
    found = [
        Migration(int(match[1]), match[2], file.read_text("utf-8"))
        for file in (files(__package__) / "migrations").iterdir()
        if (match := _NAME.fullmatch(file.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


def pending(applied: dict[int, str], known: Iterable[Migration]) -> list[Migration]:
    """Return the migrations that are not applied yet.

    Raises `MigrationError` if the file of an applied migration was edited.
    """
    todo = []
    for migration in known:
        digest = applied.get(migration.version)
        if digest is None:
            todo.append(migration)
        elif digest != migration.digest:
            raise MigrationError(
                f"Migration {migration.version:04} was applied with different content, by another "
                "build; export the evidence with that build, and start with an empty database."
            )
    return todo


def reject_contracted(applied: Mapping[int, str], known: Iterable[Migration]) -> None:
    """Check that no newer version removed what this version uses.

    `applied` maps versions to names. Unknown migrations that only add something are no obstacle.
    Raises `MigrationError`.
    """
    mine = {migration.version for migration in known}
    newer = [
        f"{version:04}_{name}"
        for version, name in sorted(applied.items())
        if version not in mine and name.startswith(CONTRACT)
    ]
    if newer:
        raise MigrationError(
            "A newer version of Toolbus removed tables or columns that this version uses "
            f"({', '.join(newer)}). Start that version again, or restore the backup that was made "
            "before the upgrade."
        )


def migrate(
    execute: Callable[[str], object],
    rows: Callable[[str], Iterable[tuple[int, str, str]]],
    cluster: str = "",
) -> list[int]:
    """Apply pending migrations and return their versions. Safe to run concurrently.

    Raises `MigrationError` if the tables do not match this version.
    """
    for statement in for_cluster([RECORD.strip()], cluster):
        execute(statement)
    applied = list(rows("SELECT version, digest, name FROM migrations"))
    reject_contracted({version: name for version, _, name in applied}, migrations())
    todo = pending({version: digest for version, digest, _ in applied}, migrations())
    for migration in todo:
        for statement in for_cluster(migration.statements(), cluster):
            execute(statement)
        execute(  # the values are names and digests of files of this package
            "INSERT INTO migrations (version, name, digest) VALUES "  # noqa: S608
            f"({migration.version}, '{migration.name}', '{migration.digest}')"
        )
    return [migration.version for migration in todo]


def for_cluster(statements: Iterable[str], cluster: str) -> list[str]:
    """Return the statements unchanged, or rewritten for a cluster if one is named.

    Raises:
        MigrationError: a statement has no equivalent on a cluster.

    """
    if not cluster:
        return list(statements)
    every = (each for migration in migrations() for each in migration.statements())
    known = tables([RECORD.strip(), *every])
    try:
        return [rewritten for each in statements for rewritten in clustered(each, cluster, known)]
    except ClusterError as error:
        raise MigrationError(str(error)) from error
