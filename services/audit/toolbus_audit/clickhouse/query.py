"""Answers questions in SQL: one statement, reading only, within bounds of time, rows and bytes."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.errors import InvalidError
from toolbus_common.privacy.key_store import PersonKeys

MOST_ROWS = 10_000
MOST_BYTES = 6 * 1024 * 1024  # the bus carries messages of 8 MiB
LONGEST_SQL = 64 * 1024
_PERSON = re.compile(r"\bperson\(\s*'([^'\\]{1,128})'\s*\)")


NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})


class Answers(Protocol):
    """What asks ClickHouse."""

    async def ask(
        self, sql: str, limit: int, parameters: Mapping[str, str] = NO_PARAMETERS
    ) -> bytes:
        """The answer to one reading statement as JSONCompact; `InvalidError` if it is not one."""


class _Column(msgspec.Struct):
    name: str


class _Told(msgspec.Struct):
    meta: list[_Column] = []
    data: list[list[Any]] = []


_decode = msgspec.json.Decoder(_Told).decode


async def answer(store: Answers, people: PersonKeys, question: AuditQuery) -> RowsReply:
    """The rows, at most as many as asked for. Raises `InvalidError` with ClickHouse's sentence.

    `person('ann')` in the statement is what events call that person.
    """
    if len(question.sql) > LONGEST_SQL:
        raise InvalidError(f"The statement is longer than {LONGEST_SQL} characters; shorten it.")
    limit = min(max(question.limit, 1), MOST_ROWS)
    sql = _PERSON.sub(lambda found: f"'{people.pseudonym_of(found[1])}'", question.sql)
    data = await store.ask(sql, limit + 1, question.parameters)
    if len(data) > MOST_BYTES:
        megabytes = MOST_BYTES // 2**20
        raise InvalidError(f"The answer is over {megabytes} MiB; ask for fewer rows or columns.")
    told = _decode(data) if data else _Told()
    rows = told.data[:limit]
    return RowsReply(
        columns=tuple(column.name for column in told.meta),
        rows=tuple(map(tuple, rows if question.as_stored else people.revealed(rows))),
        more=len(told.data) > limit,
    )
