"""ClickHouse, inside this process or behind a URL: the only module that knows its client."""

import asyncio
import fcntl
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, Error, OperationalError

from toolbus_audit.clickhouse import row_mapper as rows
from toolbus_audit.clickhouse import row_policies
from toolbus_audit.clickhouse.cluster_ddl import database
from toolbus_audit.clickhouse.errors import StoreDownError, UnreadableError
from toolbus_audit.clickhouse.migrate import MigrationError, migrate, migrations, spelled
from toolbus_audit.clickhouse.query import NO_PARAMETERS
from toolbus_audit.clickhouse.sql_guard import refusal
from toolbus_audit.settings import Settings
from toolbus_common.errors import InvalidError

T = TypeVar("T")
Position = tuple[int, int, str]

INSERT_SECONDS = 8.0  # ClickHouse itself gives an insert up after this
WAIT_SECONDS = 10.0  # so that an answer awaited this long in vain is known to be no insert
SEQUENCES_AT_ONCE = 5_000
QUERY_BYTES = 256 * 1024 * 1024
MOST_TOLD = 1_000_000  # rows of a statement of our own
# ClickHouse's error codes for a value it cannot read or hold: sending it again will not help.
UNREADABLE = frozenset({6, 26, 27, 38, 41, 53, 69, 70, 72, 117, 131, 321})
WRITING = {
    "async_insert": 0,
    "max_execution_time": INSERT_SECONDS,
    "max_insert_threads": 1,
    "max_threads": 1,
    "input_format_parallel_parsing": 0,
    "max_partitions_per_insert_block": 0,
    "optimize_on_insert": 0,
}
# On a cluster an insert is over when every shard has its rows, and a replica that has not caught up
# is not asked what is stored: what it lacks would be written again.
SPREAD = {
    "distributed_product_mode": "global",
    "distributed_foreground_insert": 1,
    "max_replica_delay_for_distributed_queries": 5,
    "fallback_to_stale_replicas_for_distributed_queries": 0,
}
# What the embedded engine may keep in memory: audit shares a small machine with everything else.
EMBEDDED = {
    "mark_cache_size": "8388608",
    "index_mark_cache_size": "1048576",
    "max_thread_pool_size": "64",
    "max_thread_pool_free_size": "0",
}
_AROUND = re.compile(
    r"DB::Exception: |Code: \d+\. |\(version [^()]*(?:\([^()]*\))?\)\.?|\([A-Z_]{4,}\)\s*$"
)


class ClickHouse:
    """Writes and asks on two threads of its own, so that a slow question delays no event.

    The engine's calls block, and embedded it allows one process a directory: the directory is
    held by a lock that ends with the process, however it ends.
    """

    def __init__(self, settings: Settings) -> None:
        # It warns of every attempt; the writer says once what is the matter.
        logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)
        self._url = settings.clickhouse_url.get_secret_value()
        self._database = settings.clickhouse_database
        self._cluster = settings.clickhouse_cluster if self._url else ""
        self._directory = settings.clickhouse_directory
        self._options = EMBEDDED
        self._query_seconds = settings.audit_query_seconds
        self._write = ThreadPoolExecutor(1, "audit-write")
        self._ask = ThreadPoolExecutor(1, "audit-ask")
        self._beside = ThreadPoolExecutor(1, "audit-beside")
        self._client: Client | None = None
        self._teller: Client | None = None  # reads statements of our own
        self._lock: int | None = None

    @property
    def place(self) -> str:
        """Where the events are kept, without credentials."""
        return urlsplit(self._url).netloc.rpartition("@")[2] or str(self._directory)

    @property
    def embedded(self) -> bool:
        """Whether the engine is inside this process."""
        return not self._url

    @property
    def database(self) -> str:
        """The database of the tables."""
        return self._database

    def opened_embedded(self) -> str:
        """How the embedded engine is connected to, once it is open. Raises `StoreDownError`."""
        self._opened()
        return f"{self._directory.resolve()}?{urlencode(self._options)}"

    async def open(self) -> None:
        """Connect, and bring the tables up to date. Raises `StoreDownError`."""
        await self._writing(self._open)

    async def close(self) -> None:
        """Finish what is running and let the directory go."""
        self._beside.shutdown(cancel_futures=True)
        await self._writing(self._close)
        self._write.shutdown()
        self._ask.shutdown()

    async def insert(self, table: str, what: rows.Written, token: str) -> None:
        """Write the rows as one block; the same token again writes nothing.

        Raises:
            StoreDownError: not now.
            UnreadableError: not these rows, ever.

        """
        await self._writing(self._insert, table, what, token)

    async def stored(self, sequences: Sequence[int]) -> set[Position]:
        """The positions already stored, of events and dead letters, in these messages."""
        return await self._writing(self._stored, sequences)

    async def last_sequence(self) -> int:
        """The newest message of which anything is stored."""
        found = await self._writing(
            self._rows,
            "SELECT greatest((SELECT max(stream_seq) FROM events),"
            " (SELECT max(stream_seq) FROM dead_letters))",
        )
        return int(found[0][0])

    async def select(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer to a statement of audit's own. Raises `StoreDownError`."""
        found: list[tuple[Any, ...]] = await self._writing(self._rows, sql)
        return found

    async def command(self, sql: str) -> None:
        """Do what a statement of audit's own says, to its end. Raises `StoreDownError`."""
        await self._writing(self._command, sql)

    async def dead_letters(self) -> int:
        """How many lines lie in the table of those nobody could read."""
        return int((await self._writing(self._rows, "SELECT count() FROM dead_letters"))[0][0])

    async def dead_from(self, first: int, most: int) -> list[Position]:
        """The dead letters of so many messages, from number `first` on, in their order."""
        where = f"WHERE stream_seq >= {first:d} ORDER BY stream_seq LIMIT {most:d}"
        some = f"SELECT DISTINCT stream_seq FROM dead_letters {where}"  # noqa: S608
        sql = f"SELECT stream_seq, line, digest FROM dead_letters WHERE stream_seq IN ({some})"  # noqa: S608
        found: list[Position] = await self._writing(self._rows, f"{sql} ORDER BY stream_seq, line")
        return found

    async def ids(self, some: Sequence[str]) -> set[str]:
        """Those of these ids that events have which are stored."""
        return await self._writing(self._ids, some)

    async def bury(self, letters: Sequence[Position]) -> None:
        """Remove dead letters that have become rows."""
        places = ",".join(f"({number},{line},'{digest}')" for number, line, digest in letters)
        where = f"(stream_seq, line, digest) IN ({places})"
        await self.command(
            f"ALTER TABLE dead_letters DELETE WHERE {where} SETTINGS mutations_sync = 2"
        )

    async def ask(
        self, sql: str, limit: int, parameters: Mapping[str, str] = NO_PARAMETERS
    ) -> bytes:
        """The answer to one reading statement, as ClickHouse's JSONCompact.

        Raises:
            InvalidError: the statement is wrong, or more than reading.
            StoreDownError: ClickHouse cannot be reached.

        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._ask, self._answer, sql, limit, dict(parameters))

    async def beside(self, sql: str) -> list[tuple[Any, ...]]:
        """Carry out a statement of ours; it delays neither events nor questions.

        Raises `StoreDownError`.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._beside, self._carried_out, sql
        )

    async def read(self, sql: str, form: str, parameters: dict[str, Any]) -> bytes:
        """The answer to a statement of audit's own, in one of ClickHouse's formats.

        Values are bound: `{name:Type}` in the statement. Raises `StoreDownError`, and
        `InvalidError` with ClickHouse's sentence.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._ask, self._told, sql, form, parameters)

    async def _writing(self, work: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._write, work, *given)

    # -- on the threads ----------------------------------------------------------------------

    def _open(self) -> None:
        if self._client is not None:
            return
        if not self._url:
            self._take_directory()
            told = row_policies.laid_down(self._directory, self._database, migrations())
            self._options = EMBEDDED | {"config-file": str(told.resolve())}
        with self._translated():
            client = self._connect(None, **(SPREAD if self._cluster else {}))
            try:
                client.command(database(self._database, self._cluster))
                client.database = self._database
                self._client = client
                migrate(client.command, self._rows, self._cluster)
            except BaseException:
                self._client = None
                client.close()
                raise

    def _close(self) -> None:
        for client in (self._teller, self._client):
            if client is not None:
                client.close()
        self._teller = self._client = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_directory(self) -> None:
        if self._lock is not None:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._directory.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise StoreDownError(
                f"Another audit writes to {self._directory}; this one stands by and takes over "
                "when that ends. To share the work, give both a server by TOOLBUS_CLICKHOUSE_URL."
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

    def _insert(self, table: str, what: rows.Written, token: str) -> None:
        with self._translated():
            self._opened().raw_insert(
                table,
                rows.columns(what),
                rows.encoded(what),
                fmt="JSONCompactEachRow",
                settings=WRITING | {"insert_deduplication_token": token},
            )

    def _stored(self, sequences: Sequence[int]) -> set[Position]:
        found: set[Position] = set()
        for start in range(0, len(sequences), SEQUENCES_AT_ONCE):
            some = ",".join(map(str, sequences[start : start + SEQUENCES_AT_ONCE]))
            for table, name in (("events", "id"), ("dead_letters", "digest")):
                sql = f"SELECT stream_seq, line, {name} FROM {table} WHERE stream_seq IN ({some})"  # noqa: S608
                found.update(self._rows(sql))
        return found

    def _ids(self, some: Sequence[str]) -> set[str]:
        sql = "SELECT id FROM events WHERE has({ids:Array(String)}, id)"
        with self._translated():
            told = self._opened().query(sql, parameters={"ids": list(some)}).result_rows
        return {str(found) for (found,) in told}

    def _rows(self, sql: str) -> Any:
        with self._translated():
            return [tuple(row) for row in self._opened().query(sql).result_rows]

    def _command(self, sql: str) -> None:
        with self._translated():
            for each in spelled([sql], self._cluster):
                self._opened().command(each)

    def _carried_out(self, sql: str) -> list[tuple[Any, ...]]:
        self._opened()
        with self._translated():
            client = self._connect(self._database)
            try:
                return [tuple(row) for row in client.query(sql).result_rows]
            finally:
                client.close()

    def _opened(self) -> Client:
        if self._client is None:
            raise StoreDownError("Audit has not opened its store yet; ask again in a moment.")
        return self._client

    def _answer(self, sql: str, limit: int, parameters: dict[str, str]) -> bytes:
        self._opened()
        with self._reading(limit) as client, self._asked():
            query = "SELECT formatQuerySingleLine(%(sql)s)"
            canonical = str(client.query(query, parameters={"sql": sql}).result_rows[0][0])
            if reason := refusal(canonical):
                raise InvalidError(reason)
            return client.raw_query(canonical, parameters=parameters or None, fmt="JSONCompact")

    def _told(self, sql: str, form: str, parameters: dict[str, Any]) -> bytes:
        self._opened()
        if self._teller is None:
            self._teller = self._reader(MOST_TOLD)
        with self._asked():
            return self._teller.raw_query(sql, parameters=parameters, fmt=form)

    @contextmanager
    def _reading(self, limit: int) -> Iterator[Client]:
        """A client of this question's own."""
        client = self._reader(limit)
        try:
            yield client
        finally:
            client.close()

    def _reader(self, limit: int) -> Client:
        """A client that reads. Read-only comes last: nothing can be set after it."""
        with self._translated():
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
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise StoreDownError(self._down(error)) from error
        except Error as error:
            raise InvalidError(sentence(error)) from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except MigrationError as error:
            raise StoreDownError(str(error)) from error
        except DatabaseError as error:
            if error.code in UNREADABLE:
                raise UnreadableError(sentence(error)) from error
            raise StoreDownError(self._down(error)) from error

    def _down(self, error: Error) -> str:
        if error.code is None and self._url:
            return (
                f"ClickHouse cannot be reached at {self.place}; events wait in the stream. "
                "Start it or mend TOOLBUS_CLICKHOUSE_URL."
            )
        return f"ClickHouse at {self.place} cannot take events now: {sentence(error)}"


def sentence(error: Exception) -> str:
    """What ClickHouse said, without codes, versions and stack."""
    said = str(error)
    line = said[max(said.find("DB::Exception: "), 0) :].split("\n", 1)[0]
    return _AROUND.sub("", line).strip()[:600]
