"""Answers readers' questions from the embedded engine: who asks, whose rows, in which bounds."""

import asyncio
import hmac
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import chdb

from toolbus_audit.bi_gateway import statement_check
from toolbus_audit.bi_gateway.errors import (
    AUTHENTICATION_FAILED,
    BAD_ARGUMENTS,
    NOT_NOW,
    TOO_MANY,
    TOO_MUCH,
    UNKNOWN_DATABASE,
    RefusedError,
)
from toolbus_audit.bi_gateway.native_hello import hello, is_hello
from toolbus_audit.bi_gateway.request import GatewayRequest
from toolbus_audit.clickhouse import row_policies
from toolbus_audit.clickhouse.store import ClickHouse, sentence
from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.config import Reader
from toolbus_common.contracts.queries.sql_text import quoted
from toolbus_common.errors import UnavailableError

log = logging.getLogger(__name__)

THREADS = 2
MOST_WAITING = 16
MOST_ROWS = 1_000_000
MOST_BYTES = 64 * 1024 * 1024
_CODE = re.compile(r"Code: (\d+)")
# A parameter is read as a value of the format TabSeparated is.
_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"})
_NOBODY = hash_of(key_digest_of("nobody"))
Session = Any  # a connection of chdb, which has no types
_connect: Callable[[str], Session] = chdb.connect


class Answering:
    """Every question has a connection of its own, which can set nothing once it is asked."""

    def __init__(
        self, store: ClickHouse, readers: Callable[[], Mapping[str, Reader]], seconds: float
    ) -> None:
        self._store = store
        self._readers = readers
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(THREADS, "audit-read")
        self._waiting = 0

    def close(self) -> None:
        """Finish what is running."""
        self._threads.shutdown(cancel_futures=True)

    async def answer(self, asked: GatewayRequest) -> tuple[str, bytes]:
        """The format and the body. Raises `RefusedError`."""
        reader = self._known(asked)
        if asked.database not in ("", "default", self._store.database):
            raise RefusedError(UNKNOWN_DATABASE, f"There is one database, {self._store.database}.")
        if not asked.sql.strip():
            return asked.format, b"Ok.\n"
        if self._waiting >= MOST_WAITING:
            raise RefusedError(TOO_MANY, "Too many questions at once; ask again in a moment.")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._answer, asked, reader)
        finally:
            self._waiting -= 1

    def _known(self, asked: GatewayRequest) -> Reader:
        """Who asks. Whether there is no such reader or the secret is another is not told."""
        reader = self._readers().get(asked.user)
        wanted = reader.secret_hash if reader and reader.secret_hash else _NOBODY
        fits = hmac.compare_digest(hash_of(key_digest_of(asked.secret)), wanted)
        if reader is None or not reader.secret_hash or not fits:
            raise RefusedError(
                AUTHENTICATION_FAILED,
                "No reader of that name with that secret; readers are declared under 'readers'.",
            )
        return reader

    # -- on a thread ---------------------------------------------------------------------------

    def _answer(self, asked: GatewayRequest, reader: Reader) -> tuple[str, bytes]:
        with self._session(asked, reader) as session:
            if is_hello(asked.sql, asked.protocol):
                return "Native", hello(_text(session, "SELECT version()"), asked.protocol)
            canonical = _text(session, "SELECT formatQuerySingleLine({sql:String})", asked.sql)
            sql, form = statement_check.split(canonical, asked.format)
            statement_check.check(sql)
            body = bytes(session.query(sql, form, params=dict(asked.parameters)).bytes() or b"")
        if len(body) > MOST_BYTES:
            raise RefusedError(
                TOO_MUCH, f"The answer is over {MOST_BYTES >> 20} MiB; ask for less."
            )
        return form, body

    @contextmanager
    def _session(self, asked: GatewayRequest, reader: Reader) -> Iterator[Session]:
        """A connection that sees the reader's rows. Read-only comes last: nothing is set after."""
        try:
            session: Session = _connect(self._store.opened_embedded())
        except UnavailableError as error:
            raise RefusedError(NOT_NOW, str(error)) from error
        try:
            session.query(f"USE `{self._store.database}`")
            for name, value in self._settings(asked, reader).items():
                session.query(f"SET {name} = {quoted(value)}")
            yield session
        except RuntimeError as error:
            told = str(error)
            match = _CODE.search(told)
            raise RefusedError(
                int(match[1]) if match else BAD_ARGUMENTS, sentence(error)
            ) from error
        finally:
            session.close()

    def _settings(self, asked: GatewayRequest, reader: Reader) -> dict[str, str]:
        chosen = {**asked.settings}
        seconds = min(float(chosen.pop("max_execution_time", 0)) or self._seconds, self._seconds)
        rows = min(int(float(chosen.pop("max_result_rows", 0))) or MOST_ROWS, MOST_ROWS)
        return {
            "session_timezone": "UTC",
            **chosen,
            row_policies.CARRIER: row_policies.customers(reader.customers),
            "max_execution_time": str(seconds),
            "max_result_rows": str(rows),
            "max_result_bytes": str(MOST_BYTES),
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
