"""Store of events in one SQLite file. Its methods are those of the ClickHouse client.

A batch is one transaction that is synced to disk before the messages are acknowledged, so the file
has every acknowledged event, after a crash too.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_origin

import msgspec

from toolbus_audit.clickhouse.errors import RowsRejectedError, StoreDownError
from toolbus_audit.clickhouse.query import MAX_BYTES, NO_PARAMETERS
from toolbus_audit.clickhouse.row_mapper import (
    CheckpointRow,
    CosignatureRow,
    DeadRow,
    EventRow,
    Written,
)
from toolbus_audit.events_file.dialect import is_like, translated
from toolbus_audit.settings import Settings
from toolbus_common.errors import InvalidError

T = TypeVar("T")
Position = tuple[int, int, str]

VERSION = 1  # of the tables; a file of a newer version is not opened
BUSY_SECONDS = 5.0
SEQUENCES_AT_ONCE = 500  # SQLite limits the parameters of a statement
CHECK_EVERY = 1_000  # instructions of SQLite between two looks at the clock
NEEDS_CLICKHOUSE = (
    "The lite form stores events in a file, which cannot answer this. Stop Toolbus and start it "
    "with 'toolbus up', without --lite: it then moves all events to ClickHouse."
)
_KINDS = {str: "TEXT", int: "INTEGER", bool: "INTEGER", float: "REAL", tuple: "TEXT"}
_TABLES: dict[str, type[msgspec.Struct]] = {
    "event_rows": EventRow,
    "dead_rows": DeadRow,
    "checkpoint_rows": CheckpointRow,
    "cosignature_rows": CosignatureRow,
}
_OF = {
    "events": "event_rows",
    "dead_letters": "dead_rows",
    "checkpoints": "checkpoint_rows",
    "cosignatures": "cosignature_rows",
}
_UNIQUE = {
    "event_rows": "stream, stream_seq, line, id",
    "dead_rows": "stream_seq, line, digest",
    "checkpoint_rows": "customer, stream, size, at",
    "cosignature_rows": "customer, stream, size, at, witness",
}
# As in ClickHouse: the time as text in UTC, and numbers that are only in the event itself.
_AT = """strftime('%Y-%m-%d %H:%M:%S', CAST(at * 1e6 AS INTEGER) / 1000000, 'unixepoch')
    || printf('.%06d', CAST(at * 1e6 AS INTEGER) % 1000000)"""
_NUMBERS = ("input_tokens", "cached_tokens", "output_tokens", "own_tokens", "request_tokens")
_SELECT, _READ, _FUNCTION, _RECURSIVE = 21, 20, 31, 33  # SQLite's codes of harmless actions
_NOT_A_FUNCTION = frozenset({"load_extension", "fts3_tokenizer", "zeroblob", "randomblob"})
LONGEST_VALUE = 8 << 20
# Functions of ClickHouse that the statements of `toolbus audit` use.
_FUNCTIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("like", 2, lambda pattern, text: is_like(str(text), str(pattern))),
    ("tostring", 1, str),
    ("concat", -1, lambda *parts: "".join(map(str, parts))),
    ("startswith", 2, lambda text, start: str(text).startswith(str(start))),
    ("position", 2, lambda text, part: str(text).find(str(part)) + 1),
    ("endswith", 2, lambda text, end: str(text).endswith(str(end))),
)


class EventsFile:
    """The file, with a thread and a connection for writes, and another for queries."""

    def __init__(self, settings: Settings) -> None:
        assert settings.events_file is not None  # noqa: S101 - the caller has checked it
        self.path = settings.events_file
        self.identity = ""  # the store of the installation is ClickHouse's; this file has no id
        self.admit: Callable[[list[str]], Awaitable[None]] | None = None
        self._seconds = settings.audit_query_seconds
        self._write_thread = ThreadPoolExecutor(1, "audit-write")
        self._read_thread = ThreadPoolExecutor(1, "audit-ask")
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    @property
    def location(self) -> str:
        """The path of the file."""
        return str(self.path)

    @property
    def embedded(self) -> bool:
        """Whether ClickHouse's engine runs inside this process."""
        return False

    async def open(self) -> None:
        """Open the file and create its tables. Raises `StoreDownError`."""
        if self.admit is not None:
            await self.admit([])
        await self._write(self._open)

    async def close(self) -> None:
        """Finish running statements and close the file."""
        for thread, connection in (
            (self._read_thread, self._reader),
            (self._write_thread, self._writer),
        ):
            if connection is not None:
                await asyncio.get_running_loop().run_in_executor(thread, connection.close)
            thread.shutdown()
        self._reader = self._writer = None

    async def insert(self, table: str, batch: Written, token: str) -> None:  # noqa: ARG002
        """Insert the rows that the file does not have, in one transaction.

        Raises `StoreDownError` or `RowsRejectedError`.
        """
        await self._write(self._insert, _OF[table], batch)

    async def stored(self, sequences: Sequence[int]) -> set[Position]:
        """Return positions of stored events and dead letters of the messages `sequences`."""
        found: set[Position] = set()
        for start in range(0, len(sequences), SEQUENCES_AT_ONCE):
            some = sequences[start : start + SEQUENCES_AT_ONCE]
            marks = ",".join("?" * len(some))
            for table, name in (("event_rows", "id"), ("dead_rows", "digest")):
                sql = f"SELECT stream_seq, line, {name} FROM {table} WHERE stream_seq IN ({marks})"  # noqa: S608
                found.update(await self.rows(sql, some))
        return found

    async def last_sequence(self) -> int:
        """Return the highest stream sequence number with a stored row."""
        sql = "SELECT max((SELECT ifnull(max(stream_seq), 0) FROM {}), {})"
        dead = "(SELECT ifnull(max(stream_seq), 0) FROM dead_rows)"
        return int((await self.rows(sql.format("event_rows", dead)))[0][0])

    async def dead_letters(self) -> int:
        """Return the number of dead letters."""
        return int((await self.rows("SELECT count(*) FROM dead_rows"))[0][0])

    async def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a statement of audit itself. Raises `StoreDownError`."""
        return await self._write(lambda: self._connected().execute(sql, values).fetchall())

    async def query(
        self, sql: str, limit: int, parameters: Mapping[str, str] = NO_PARAMETERS
    ) -> bytes:
        """Return the result of one read-only statement in the form of ClickHouse's JSONCompact.

        Raises:
            InvalidError: the statement is invalid, does more than read, or needs ClickHouse.
            StoreDownError: the file is not open.

        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._read_thread, self._query, sql, limit, dict(parameters)
        )

    async def _needs_clickhouse(self, *_: Any, **__: Any) -> NoReturn:
        """Raise `InvalidError`: only ClickHouse can do this."""
        raise InvalidError(NEEDS_CLICKHOUSE)

    select = command = read = run_in_background = _needs_clickhouse
    dead_from = stored_ids = delete_dead_letters = _needs_clickhouse

    # -- on the threads -------------------------------------------------------------------------

    async def _write(self, work: Callable[..., T], *given: Any) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._write_thread, work, *given)
        except sqlite3.Error as error:
            raise StoreDownError(
                f"The file of events {self.path} cannot be used ({error}); events wait in the "
                "stream. Check the disk and the permissions of the file."
            ) from error

    def _connected(self) -> sqlite3.Connection:
        if self._writer is None:
            raise StoreDownError("Audit has not opened its store yet; retry in a moment.")
        return self._writer

    def _open(self) -> None:
        if self._writer is None:
            self._writer = open_file(self.path)
        if self._reader is None:  # also if it could not be opened at the last attempt
            self._reader = _reader(self.path)

    def _insert(self, table: str, batch: Written) -> None:
        connection = self._connected()
        names = batch[0].__struct_fields__
        marks = ",".join("?" * len(names))
        sql = f"INSERT OR IGNORE INTO {table} ({_quoted(names)}) VALUES ({marks})"  # noqa: S608
        try:
            with connection:
                connection.executemany(sql, map(_values, batch))
        except (sqlite3.DataError, OverflowError, UnicodeEncodeError) as error:
            raise RowsRejectedError(str(error)) from error

    def _query(self, sql: str, limit: int, parameters: dict[str, str]) -> bytes:
        if self._reader is None:
            raise StoreDownError("Audit has not opened its store yet; retry in a moment.")
        until = monotonic() + self._seconds
        self._reader.set_progress_handler(lambda: monotonic() > until, CHECK_EVERY)
        try:
            statement, values = translated(sql.strip().rstrip(";"), parameters)
            with closing(self._reader.execute(statement, values)) as found:
                meta = [{"name": each[0]} for each in found.description or ()]
                rows = self._within_bounds(islice(found, limit), until)
            return msgspec.json.encode({"meta": meta, "data": rows})
        except (sqlite3.Error, ValueError, OverflowError, msgspec.MsgspecError) as error:
            if monotonic() > until:
                raise self._too_slow() from error
            raise InvalidError(f"SQLite rejects the statement ({error}). {NEEDS_CLICKHOUSE}") from (
                error
            )

    def _within_bounds(self, found: Iterable[tuple[Any, ...]], until: float) -> list[Any]:
        """Return the rows. Raises `InvalidError` if they are too large or come too late."""
        rows, size = [], 0
        for row in found:
            rows.append(row)
            size += sum(len(each) if isinstance(each, str | bytes) else 1 for each in row)
            if size > MAX_BYTES:
                raise InvalidError(
                    f"The result exceeds {MAX_BYTES >> 20} MiB; select fewer rows or columns."
                )
            if monotonic() > until:
                raise self._too_slow()
        return rows

    def _too_slow(self) -> InvalidError:
        return InvalidError(
            f"The statement was ended after {self._seconds:g} s; select fewer rows, for example "
            "those of a shorter time."
        )


def open_file(path: Path) -> sqlite3.Connection:
    """Return a connection that writes to the file, with all tables. Raises `sqlite3.Error`."""
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, BUSY_SECONDS, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise sqlite3.DatabaseError("a newer version of Toolbus wrote it")  # noqa: TRY301
        with connection:
            for statement in _schema():
                connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _schema() -> Iterable[str]:
    for table, kind in _TABLES.items():
        columns = ", ".join(
            f'"{each.name}" {_KINDS[_plain(each.type)]} NOT NULL'
            for each in msgspec.structs.fields(kind)
        )
        unique = f"UNIQUE ({_UNIQUE[table]})"
        yield f"CREATE TABLE IF NOT EXISTS {table} ({columns}, {unique})"
    yield "CREATE INDEX IF NOT EXISTS by_sequence ON event_rows (stream_seq, line)"
    yield "CREATE INDEX IF NOT EXISTS by_call ON event_rows (call_id)"
    yield "CREATE INDEX IF NOT EXISTS by_time ON event_rows (at)"
    yield _view("events", EventRow, "event_rows", _NUMBERS)
    yield _view("dead_letters", DeadRow, "dead_rows")
    yield f"PRAGMA user_version = {VERSION}"


def _view(name: str, kind: type[msgspec.Struct], table: str, numbers: Sequence[str] = ()) -> str:
    own = [each for each in kind.__struct_fields__ if each != "at"]
    more = [f"ifnull(json_extract(detail, '$.{each}'), 0) AS {each}" for each in numbers]
    columns = ", ".join([f"{_AT} AS at", _quoted(own), *more])
    return f"CREATE VIEW IF NOT EXISTS {name} AS SELECT {columns} FROM {table}"  # noqa: S608


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _plain(annotation: Any) -> type:
    """Return the type of a field without the limits of its values."""
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    found: type = get_origin(bare) or bare
    return found


def _values(row: msgspec.Struct) -> list[Any]:
    return [
        msgspec.json.encode(each).decode() if isinstance(each, tuple) else each
        for each in msgspec.structs.astuple(row)
    ]


def _reader(path: Path) -> sqlite3.Connection:
    """Return a connection that can read the tables and do nothing else."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", BUSY_SECONDS, uri=True, check_same_thread=False
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    for name, parameters, function in _FUNCTIONS:
        connection.create_function(name, parameters, function, deterministic=True)
    connection.set_authorizer(_authorized)
    return connection


def _authorized(action: int, first: str | None, second: str | None, *_: object) -> int:
    if action in (_SELECT, _READ, _RECURSIVE):
        return sqlite3.SQLITE_OK
    if action == _FUNCTION and (second or first) not in _NOT_A_FUNCTION:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY
