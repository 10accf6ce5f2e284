"""Answer SQL queries: one read-only statement within limits of time, rows and bytes."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.errors import InvalidError
from toolbus_common.privacy.key_store import PersonKeys

MAX_ROWS = 10_000
MAX_BYTES = 6 * 1024 * 1024  # a message on the bus has at most 8 MiB
LONGEST_SQL = 64 * 1024
_PERSON = re.compile(r"\bperson\(\s*'([^'\\]{1,128})'\s*\)")


NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})


class ReadOnlyStore(Protocol):
    """Store that runs read-only statements."""

    async def query(
        self, sql: str, limit: int, parameters: Mapping[str, str] = NO_PARAMETERS
    ) -> bytes:
        """Return the result of one read-only statement as JSONCompact. Raises `InvalidError`."""


class _Column(msgspec.Struct):
    name: str


class Table(msgspec.Struct):
    """Result of a query, as JSONCompact encodes it."""

    meta: list[_Column] = []
    data: list[list[Any]] = []


_decode = msgspec.json.Decoder(Table).decode


def decode(result: bytes) -> Table:
    """Decode JSONCompact; an empty result is a table without columns and rows."""
    return _decode(result) if result else Table()


async def answer(store: ReadOnlyStore, people: PersonKeys, query: AuditQuery) -> RowsReply:
    """Run an audit query and return at most `query.limit` rows.

    `person('ann')` in the statement stands for the pseudonym of that person in events. Raises
    `InvalidError` with ClickHouse's message.
    """
    if len(query.sql) > LONGEST_SQL:
        raise InvalidError(f"The statement is longer than {LONGEST_SQL} characters; shorten it.")
    limit = min(max(query.limit, 1), MAX_ROWS)
    sql = _PERSON.sub(lambda found: f"'{people.pseudonym_of(found[1])}'", query.sql)
    data = await store.query(sql, limit + 1, query.parameters)
    if len(data) > MAX_BYTES:
        megabytes = MAX_BYTES // 2**20
        raise InvalidError(f"The result exceeds {megabytes} MiB; select fewer rows or columns.")
    table = decode(data)
    rows = table.data[:limit]
    return RowsReply(
        columns=tuple(column.name for column in table.meta),
        rows=tuple(map(tuple, rows if query.as_stored else people.revealed(rows))),
        more=len(table.data) > limit,
    )
