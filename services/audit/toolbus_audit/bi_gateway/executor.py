"""Run readers' queries on the embedded engine: authenticate, limit rows and resources."""

import asyncio
import hmac
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from toolbus_audit.bi_gateway import statement_check
from toolbus_audit.bi_gateway.errors import (
    AUTHENTICATION_FAILED,
    BAD_ARGUMENTS,
    NOT_NOW,
    TOO_MANY,
    TOO_MUCH,
    UNKNOWN_DATABASE,
    GatewayError,
)
from toolbus_audit.bi_gateway.native_hello import hello, is_hello
from toolbus_audit.bi_gateway.request import GatewayRequest
from toolbus_audit.clickhouse import row_policies
from toolbus_audit.clickhouse.embedded_engine import Session, connect
from toolbus_audit.clickhouse.store import ClickHouse, message_of
from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.config import Reader
from toolbus_common.contracts.queries.sql_text import quoted
from toolbus_common.errors import UnavailableError

log = logging.getLogger(__name__)

THREADS = 2
MAX_WAITING = 16
MAX_ROWS = 1_000_000
MAX_BYTES = 64 * 1024 * 1024
_CODE = re.compile(r"Code: (\d+)")
# The engine parses parameters like values of the format TabSeparated.
_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"})
_UNKNOWN_READER_HASH = hash_of(key_digest_of("nobody"))


class QueryExecutor:
    """Executor of queries. Each query has a new connection that cannot change its settings."""

    def __init__(
        self, store: ClickHouse, readers: Callable[[], Mapping[str, Reader]], seconds: float
    ) -> None:
        self._store = store
        self._readers = readers
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(THREADS, "audit-read")
        self._waiting = 0

    def close(self) -> None:
        """Finish running queries."""
        self._threads.shutdown(cancel_futures=True)

    async def execute(self, request: GatewayRequest) -> tuple[str, bytes]:
        """Run a request and return the format and the body. Raises `GatewayError`."""
        reader = self._authenticate(request)
        if request.database not in ("", "default", self._store.database):
            raise GatewayError(
                UNKNOWN_DATABASE,
                f"Unknown database; select '{self._store.database}', which is the only one.",
            )
        if not request.sql.strip():
            _, form = statement_check.split("", request.format)
            return form, b"Ok.\n"
        if self._waiting >= MAX_WAITING:
            raise GatewayError(TOO_MANY, "Too many concurrent queries; retry in a moment.")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._execute, request, reader)
        finally:
            self._waiting -= 1

    def _authenticate(self, request: GatewayRequest) -> Reader:
        """Return the authenticated reader. Unknown names and wrong secrets cause one error."""
        reader = self._readers().get(request.user)
        wanted = reader.secret_hash if reader and reader.secret_hash else _UNKNOWN_READER_HASH
        fits = hmac.compare_digest(hash_of(key_digest_of(request.secret)), wanted)
        if reader is None or not reader.secret_hash or not fits:
            raise GatewayError(
                AUTHENTICATION_FAILED,
                "Unknown reader or wrong secret; configure readers under 'readers'.",
            )
        return reader

    # -- on a thread of the pool ---------------------------------------------------------------

    def _execute(self, request: GatewayRequest, reader: Reader) -> tuple[str, bytes]:
        with self._session(request, reader) as session:
            if is_hello(request.sql, request.protocol):
                return "Native", hello(_text(session, "SELECT version()"), request.protocol)
            canonical = _text(session, "SELECT formatQuerySingleLine({sql:String})", request.sql)
            sql, form = statement_check.split(canonical, request.format)
            statement_check.check(sql)
            body = bytes(session.query(sql, form, params=dict(request.parameters)).bytes() or b"")
        if len(body) > MAX_BYTES:
            raise GatewayError(
                TOO_MUCH,
                f"The result exceeds {MAX_BYTES >> 20} MiB; select fewer rows or columns.",
            )
        return form, body

    @contextmanager
    def _session(self, request: GatewayRequest, reader: Reader) -> Iterator[Session]:
        """Open a connection limited to the reader's rows.

        `readonly` is set last, as it locks all settings.
        """
        try:
            session: Session = connect(self._store.embedded_connection())
        except UnavailableError as error:
            raise GatewayError(NOT_NOW, str(error)) from error
        try:
            session.query(f"USE `{self._store.database}`")
            for name, value in self._settings(request, reader).items():
                session.query(f"SET {name} = {quoted(value)}")
            yield session
        except RuntimeError as error:
            match = _CODE.search(str(error))
            raise GatewayError(
                int(match[1]) if match else BAD_ARGUMENTS, message_of(error)
            ) from error
        finally:
            session.close()

    def _settings(self, request: GatewayRequest, reader: Reader) -> dict[str, str]:
        chosen = {**request.settings}
        seconds = min(float(chosen.pop("max_execution_time", 0)) or self._seconds, self._seconds)
        rows = min(int(float(chosen.pop("max_result_rows", 0))) or MAX_ROWS, MAX_ROWS)
        return {
            "session_timezone": "UTC",
            **chosen,
            row_policies.CARRIER: row_policies.customers(reader.customers),
            "max_execution_time": str(seconds),
            "max_result_rows": str(rows),
            "max_result_bytes": str(MAX_BYTES),
            "result_overflow_mode": "throw",
            "max_memory_usage": str(256 << 20),
            "max_threads": "2",
            "max_ast_depth": "500",
            "max_subquery_depth": "50",
            "readonly": "1",
        }


def _text(session: Session, query: str, sql: str = "") -> str:
    found = session.query(query, "TSVRaw", params={"sql": sql.translate(_ESCAPED)} if sql else {})
    return bytes(found.bytes()).decode().rstrip("\n")
