"""ClickHouse, embedded in this process or at a URL. Only this module uses its client."""

import asyncio
import fcntl
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import clickhouse_connect
from clickhouse_connect.driver import options
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, DataError, Error, OperationalError

from toolbus_audit.clickhouse import embedded_engine, row_policies, store_identity
from toolbus_audit.clickhouse import row_mapper as rows
from toolbus_audit.clickhouse.cluster_ddl import database
from toolbus_audit.clickhouse.embedded_memory import EMBEDDED_SETTINGS
from toolbus_audit.clickhouse.errors import RowsRejectedError, StoreDownError
from toolbus_audit.clickhouse.migrate import MigrationError, for_cluster, migrate, migrations
from toolbus_audit.clickhouse.query import NO_PARAMETERS
from toolbus_audit.clickhouse.sql_guard import rejection
from toolbus_audit.clickhouse.statement_settings import CLUSTER_SETTINGS, INSERT_SETTINGS
from toolbus_audit.settings import Settings
from toolbus_common.errors import InvalidError

options.pd = options.np = None  # an insert would import them (60 MB), where they are installed

T = TypeVar("T")
Position = tuple[int, int, str]

WAIT_SECONDS = 10.0  # exceeds INSERT_SECONDS: an insert without a response by then was aborted
SEQUENCES_AT_ONCE = 5_000
QUERY_BYTES = 256 * 1024 * 1024
MAX_OWN_ROWS = 1_000_000  # rows that a statement of audit itself may return
# ClickHouse's error codes for a value that it cannot parse or represent: a retry fails too.
REJECTED_CODES = frozenset({6, 26, 27, 38, 41, 53, 69, 70, 72, 117, 131, 321})
_NOISE = re.compile(
    r"DB::Exception: |Code: \d+\. |\(version [^()]*(?:\([^()]*\))?\)\.?|\([A-Z_]{4,}\)\s*$"
)


class ClickHouse:
    """Client of the store, with separate threads for writes, queries and background statements.

    The engine's calls block their thread, so a slow query does not delay events. The embedded
    engine allows one process per directory, so a file lock protects the directory. The lock ends
    with the process.
    """

    def __init__(self, settings: Settings) -> None:
        # The client warns of every attempt; the writer logs the reason once.
        logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)
        self._url = settings.clickhouse_url.get_secret_value()
        self._database = settings.clickhouse_database
        self._cluster = settings.clickhouse_cluster if self._url else ""
        self._directory = settings.clickhouse_directory
        self._options = EMBEDDED_SETTINGS
        self._query_seconds = settings.audit_query_seconds
        self._write_thread = ThreadPoolExecutor(1, "audit-write")
        self._query_thread = ThreadPoolExecutor(1, "audit-ask")
        self._background_thread = ThreadPoolExecutor(1, "audit-beside")
        self._client: Client | None = None
        self._own_reader: Client | None = None  # for statements of audit itself
        self._lock: int | None = None
        self.identity = ""  # the id of the installation's store, once this store was admitted
        self._is_admitted = False
        # Raises `StoreDownError` if the store with these ids is not the one of the installation.
        self.admit: Callable[[list[str]], Awaitable[None]] | None = None
        if self.embedded:
            embedded_engine.load()

    @property
    def location(self) -> str:
        """Host or directory of the store, without credentials."""
        return urlsplit(self._url).netloc.rpartition("@")[2] or str(self._directory)

    @property
    def embedded(self) -> bool:
        """Whether the engine runs inside this process."""
        return not self._url

    @property
    def database(self) -> str:
        """The database of the tables."""
        return self._database

    def embedded_connection(self) -> str:
        """Return the connection string of the embedded engine. Raises `StoreDownError`."""
        self._connected()
        return f"{self._directory.resolve()}?{urlencode(self._options)}"

    async def open(self) -> None:
        """Connect, apply migrations and check the identity. Raises `StoreDownError`."""
        ids = await self._in_write_thread(self._open)
        if self.admit is not None:
            self._is_admitted = False
            await self.admit(ids)
        self._is_admitted = True

    async def close(self) -> None:
        """Finish running statements and release the directory."""
        self._background_thread.shutdown(cancel_futures=True)
        await self._in_write_thread(self._close)
        self._write_thread.shutdown()
        self._query_thread.shutdown()

    async def insert(self, table: str, batch: rows.Written, token: str) -> None:
        """Insert the rows as one block. If the token was used before, nothing is inserted.

        Raises:
            StoreDownError: the store is unavailable; retry later.
            RowsRejectedError: the store rejects one of the rows; a retry fails too.

        """
        await self._in_write_thread(self._insert, table, batch, token)

    async def stored(self, sequences: Sequence[int]) -> set[Position]:
        """Return the positions of the stored events and dead letters of these messages."""
        return await self._in_write_thread(self._stored, sequences)

    async def last_sequence(self) -> int:
        """Return the highest stream sequence number with a stored row."""
        found = await self._in_write_thread(
            self._rows,
            "SELECT greatest((SELECT max(stream_seq) FROM events),"
            " (SELECT max(stream_seq) FROM dead_letters))",
        )
        return int(found[0][0])

    async def select(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query of audit itself and return its rows. Raises `StoreDownError`."""
        found: list[tuple[Any, ...]] = await self._in_write_thread(self._rows, sql)
        return found

    async def command(self, sql: str) -> None:
        """Run a command of audit itself to completion. Raises `StoreDownError`."""
        await self._in_write_thread(self._command, sql)

    async def dead_letters(self) -> int:
        """Return the number of rows in the table `dead_letters`."""
        return int(
            (await self._in_write_thread(self._rows, "SELECT count() FROM dead_letters"))[0][0]
        )

    async def dead_from(self, first: int, maximum: int) -> list[Position]:
        """Return dead letters of at most `maximum` messages, in order from sequence `first`."""
        where = f"WHERE stream_seq >= {first:d} ORDER BY stream_seq LIMIT {maximum:d}"
        chosen = f"SELECT DISTINCT stream_seq FROM dead_letters {where}"  # noqa: S608
        sql = f"SELECT stream_seq, line, digest FROM dead_letters WHERE stream_seq IN ({chosen})"  # noqa: S608
        return await self._in_write_thread(self._rows, f"{sql} ORDER BY stream_seq, line")

    async def stored_ids(self, event_ids: Sequence[str]) -> set[str]:
        """Return which of these event ids are stored."""
        return await self._in_write_thread(self._stored_ids, event_ids)

    async def delete_dead_letters(self, letters: Sequence[Position]) -> None:
        """Delete dead letters whose lines were stored as rows later."""
        keys = ",".join(f"({number},{line},'{digest}')" for number, line, digest in letters)
        where = f"(stream_seq, line, digest) IN ({keys})"
        await self.command(
            f"ALTER TABLE dead_letters DELETE WHERE {where} SETTINGS mutations_sync = 2"
        )

    async def query(
        self, sql: str, limit: int, parameters: Mapping[str, str] = NO_PARAMETERS
    ) -> bytes:
        """Return the result of one read-only statement as ClickHouse's JSONCompact.

        Raises:
            InvalidError: the statement is invalid or does more than read.
            StoreDownError: ClickHouse cannot be reached.

        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._query_thread, self._run_query, sql, limit, dict(parameters)
        )

    async def run_in_background(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement of audit itself without delaying inserts and queries.

        Raises `StoreDownError`.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._background_thread, self._run_separately, sql
        )

    async def read(self, sql: str, form: str, parameters: dict[str, Any]) -> bytes:
        """Return the result of a query of audit itself in one of ClickHouse's formats.

        Values are bound as `{name:Type}` in the statement. Raises `StoreDownError`, or
        `InvalidError` with ClickHouse's message.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._query_thread, self._run_own, sql, form, parameters)

    async def _in_write_thread(self, work: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._write_thread, work, *given)

    # -- on the threads ----------------------------------------------------------------------

    def _open(self) -> list[str]:
        if self._client is None:
            self._connect_and_migrate()
        return store_identity.ids_of(self._rows_of, self._command_of)

    def _connect_and_migrate(self) -> None:
        if not self._url:
            self._lock_directory()
            config = row_policies.write_files(self._directory, self._database, migrations())
            self._options = EMBEDDED_SETTINGS | {"config-file": str(config.resolve())}
        with self._store_errors():
            client = self._connect(None, **(CLUSTER_SETTINGS if self._cluster else {}))
            try:
                client.command(database(self._database, self._cluster))
                client.database = self._database
                self._client = client
                migrate(client.command, self._rows_of, self._cluster)
            except BaseException:
                self._client = None
                client.close()
                raise

    def _close(self) -> None:
        for client in (self._own_reader, self._client):
            if client is not None:
                client.close()
        self._own_reader = self._client = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _lock_directory(self) -> None:
        if self._lock is not None:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._directory.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise StoreDownError(
                f"Another audit process uses {self._directory}; this one waits and takes over when "
                "that process ends. To run both, set TOOLBUS_CLICKHOUSE_URL to a ClickHouse server."
            ) from error
        self._lock = lock

    def _connect(self, database: str | None, **settings: Any) -> Client:
        if not self._url:
            return clickhouse_connect.get_client(
                interface="chdb",
                path=str(self._directory),
                chdb_options=self._options,
                database=database,
                settings=settings,
            )
        scheme = urlsplit(self._url).scheme
        return clickhouse_connect.get_client(
            dsn=self._url,
            interface="https" if scheme in ("https", "clickhouses") else "http",
            database=database or "default",
            settings=settings,
            autogenerate_session_id=False,
            connect_timeout=3,
            send_receive_timeout=int(WAIT_SECONDS),
        )

    def _insert(self, table: str, batch: rows.Written, token: str) -> None:
        with self._store_errors():
            client, columns = self._connected(), rows.columns(batch)
            context = client.create_insert_context(
                table, columns.names, column_type_names=columns.types, column_oriented=True
            )
            context.settings = INSERT_SETTINGS | {"insert_deduplication_token": token}
            context.data = columns.values
            # By default the client sends blocks of 2 MB. The token covers one block: ClickHouse
            # would drop the others as duplicates of the first.
            context.block_row_count = len(batch)
            client.data_insert(context)

    def _stored(self, sequences: Sequence[int]) -> set[Position]:
        found: set[Position] = set()
        for start in range(0, len(sequences), SEQUENCES_AT_ONCE):
            chosen = ",".join(map(str, sequences[start : start + SEQUENCES_AT_ONCE]))
            for table, name in (("events", "id"), ("dead_letters", "digest")):
                sql = f"SELECT stream_seq, line, {name} FROM {table} WHERE stream_seq IN ({chosen})"  # noqa: S608
                found.update(self._rows(sql))
        return found

    def _stored_ids(self, event_ids: Sequence[str]) -> set[str]:
        sql = "SELECT id FROM events WHERE has({ids:Array(String)}, id)"
        with self._store_errors():
            found = self._connected().query(sql, parameters={"ids": list(event_ids)}).result_rows
        return {str(event_id) for (event_id,) in found}

    def _rows(self, sql: str) -> Any:
        self._connected()
        return self._rows_of(sql)

    def _rows_of(self, sql: str) -> Any:
        with self._store_errors():
            assert self._client is not None  # noqa: S101 - the callers have checked it
            return [tuple(row) for row in self._client.query(sql).result_rows]

    def _command(self, sql: str) -> None:
        self._connected()
        self._command_of(sql)

    def _command_of(self, sql: str) -> None:
        with self._store_errors():
            assert self._client is not None  # noqa: S101 - the callers have checked it
            for each in for_cluster([sql], self._cluster):
                self._client.command(each)

    def _run_separately(self, sql: str) -> list[tuple[Any, ...]]:
        self._connected()
        with self._store_errors():
            client = self._connect(self._database)
            try:
                return [tuple(row) for row in client.query(sql).result_rows]
            finally:
                client.close()

    def _connected(self) -> Client:
        if self._client is None or not self._is_admitted:
            raise StoreDownError("Audit has not opened its store yet; retry in a moment.")
        return self._client

    def _run_query(self, sql: str, limit: int, parameters: dict[str, str]) -> bytes:
        self._connected()
        with closing(self._reader(limit)) as client, self._query_errors():
            query = "SELECT formatQuerySingleLine(%(sql)s)"
            canonical = str(client.query(query, parameters={"sql": sql}).result_rows[0][0])
            if reason := rejection(canonical):
                raise InvalidError(reason)
            return client.raw_query(canonical, parameters=parameters or None, fmt="JSONCompact")

    def _run_own(self, sql: str, form: str, parameters: dict[str, Any]) -> bytes:
        self._connected()
        if self._own_reader is None:
            self._own_reader = self._reader(MAX_OWN_ROWS)
        with self._query_errors():
            return self._own_reader.raw_query(sql, parameters=parameters, fmt=form)

    def _reader(self, limit: int) -> Client:
        """Connect a read-only client. `readonly` is set last, because it locks all settings."""
        with self._store_errors():
            return self._connect(
                self._database,
                limit=limit,
                max_result_rows=limit,
                result_overflow_mode="break",
                max_execution_time=self._query_seconds,
                max_memory_usage=QUERY_BYTES,
                max_threads=2,
                output_format_json_quote_64bit_integers=0,
                output_format_json_validate_utf8=1,
                distributed_product_mode="global",
                readonly=1,
            )

    @contextmanager
    def _query_errors(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise StoreDownError(self._down_message(error)) from error
        except Error as error:
            raise InvalidError(message_of(error)) from error

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except MigrationError as error:
            raise StoreDownError(str(error)) from error
        except DatabaseError as error:  # `DataError`: the client cannot encode a value
            if isinstance(error, DataError) or error.code in REJECTED_CODES:
                raise RowsRejectedError(message_of(error)) from error
            raise StoreDownError(self._down_message(error)) from error

    def _down_message(self, error: Error) -> str:
        if error.code is None and self._url:
            return (
                f"ClickHouse cannot be reached at {self.location}; events wait in the stream. "
                "Start it or correct TOOLBUS_CLICKHOUSE_URL."
            )
        return f"ClickHouse at {self.location} rejects statements; fix this: {message_of(error)}"


def message_of(error: Exception) -> str:
    """Return ClickHouse's error message without codes, version and stack trace."""
    text = str(error)
    line = text[max(text.find("DB::Exception: "), 0) :].split("\n", 1)[0]
    return _NOISE.sub("", line).strip()[:600]
