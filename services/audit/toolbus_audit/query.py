"""Answers questions in SQL: one statement, reading only, within bounds of time, rows and bytes."""

from typing import Any, Protocol

import msgspec

from toolbus_common.contracts import AuditQueried, RowsFound
from toolbus_common.errors import InvalidError

MOST_ROWS = 10_000
MOST_BYTES = 6 * 1024 * 1024  # the bus carries messages of 8 MiB
LONGEST_SQL = 64 * 1024


class Answers(Protocol):
    """What asks ClickHouse."""

    async def ask(self, sql: str, limit: int) -> bytes:
        """The answer to one reading statement as JSONCompact; `InvalidError` if it is not one."""


class _Column(msgspec.Struct):
    name: str


class _Told(msgspec.Struct):
    meta: list[_Column] = []
    data: list[list[Any]] = []


_decode = msgspec.json.Decoder(_Told).decode


async def answer(store: Answers, question: AuditQueried) -> RowsFound:
    """The rows, at most as many as asked for. Raises `InvalidError` with ClickHouse's sentence."""
    if len(question.sql) > LONGEST_SQL:
        raise InvalidError(f"The statement is longer than {LONGEST_SQL} characters; shorten it.")
    limit = min(max(question.limit, 1), MOST_ROWS)
    data = await store.ask(question.sql, limit + 1)
    if len(data) > MOST_BYTES:
        megabytes = MOST_BYTES // 2**20
        raise InvalidError(f"The answer is over {megabytes} MiB; ask for fewer rows or columns.")
    told = _decode(data) if data else _Told()
    return RowsFound(
        columns=tuple(column.name for column in told.meta),
        rows=tuple(map(tuple, told.data[:limit])),
        more=len(told.data) > limit,
    )
