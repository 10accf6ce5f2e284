"""Numbered SQL files, applied once each in order, and recorded where they were applied."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from toolbus_audit.clickhouse.cluster_ddl import ClusterError, clustered, tables

_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_COMMENT = re.compile(r"^--.*$", re.MULTILINE)

RECORD = """
CREATE TABLE IF NOT EXISTS migrations
(version UInt32, name String, digest String, at DateTime DEFAULT now())
ENGINE = ReplacingMergeTree ORDER BY version
"""


class MigrationError(Exception):
    """The store's tables and this program's do not fit; the sentence says how."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. Its statements may run twice without harm: a crash may fall between any two."""

    version: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """What tells an edited file from the one that was applied."""
        return sha256(self.sql.encode()).hexdigest()

    def statements(self) -> list[str]:
        """Its statements, without comments."""
        parts = _COMMENT.sub("", self.sql).split(";\n")
        return [part.strip() for part in parts if part.strip()]


def migrations() -> list[Migration]:
    """Every migration this program knows, in order."""
    found = [
        Migration(int(match[1]), match[2], file.read_text("utf-8"))
        for file in (files(__package__) / "migrations").iterdir()
        if (match := _NAME.fullmatch(file.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


def pending(applied: dict[int, str], known: Iterable[Migration]) -> list[Migration]:
    """What is still to do. Raises `MigrationError` when an applied file was edited since."""
    todo = []
    for migration in known:
        digest = applied.get(migration.version)
        if digest is None:
            todo.append(migration)
        elif digest != migration.digest:
            raise MigrationError(
                f"Migration {migration.version:04} was applied in another form than this "
                f"version holds; restore the file and add a new one instead."
            )
    return todo


def migrate(
    execute: Callable[[str], object],
    rows: Callable[[str], Iterable[tuple[int, str]]],
    cluster: str = "",
) -> list[int]:
    """Bring the tables up to date; the versions applied now. Two may do so at once."""
    for statement in spelled([RECORD.strip()], cluster):
        execute(statement)
    applied = dict(rows("SELECT version, digest FROM migrations"))
    todo = pending(applied, migrations())
    for migration in todo:
        for statement in spelled(migration.statements(), cluster):
            execute(statement)
        execute(  # the values are our own files' names and digests
            "INSERT INTO migrations (version, name, digest) VALUES "  # noqa: S608
            f"({migration.version}, '{migration.name}', '{migration.digest}')"
        )
    return [migration.version for migration in todo]


def spelled(statements: Iterable[str], cluster: str) -> list[str]:
    """These statements as they are run on one server, or on a cluster.

    Raises:
        MigrationError: one of them cannot be run on a cluster.

    """
    if not cluster:
        return list(statements)
    every = (each for migration in migrations() for each in migration.statements())
    known = tables([RECORD.strip(), *every])
    try:
        return [made for each in statements for made in clustered(each, cluster, known)]
    except ClusterError as error:
        raise MigrationError(str(error)) from error
