"""Read selected rows of `events` in pieces of limited size, encoded in an export format."""

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from toolbus_audit.export import ocsf
from toolbus_audit.export.selection import Parameters, Selection
from toolbus_common.errors import InvalidError

JSONL, OCSF, PARQUET = "jsonl", "ocsf", "parquet"
FORMATS = (JSONL, OCSF, PARQUET)


class RowReader(Protocol):
    """Store that runs read-only statements of audit itself."""

    async def read(self, sql: str, form: str, parameters: Parameters) -> bytes:
        """Return the result in one of ClickHouse's formats."""


@dataclass(frozen=True, slots=True)
class Order:
    """Sort order of pieces: columns, each with its ClickHouse type."""

    columns: tuple[tuple[str, str], ...]

    @property
    def by(self) -> str:
        """The columns for ORDER BY."""
        return ", ".join(name for name, _ in self.columns)

    def after(self, position: tuple[Any, ...]) -> Selection:
        """Return the selection of the rows after a position."""
        return self._compare(">", "after", position)

    def up_to(self, position: tuple[Any, ...]) -> Selection:
        """Return the selection of the rows up to a position, inclusive."""
        return self._compare("<=", "upto", position)

    def _compare(self, sign: str, prefix: str, position: tuple[Any, ...]) -> Selection:
        named = {f"{prefix}{at}": value for at, value in enumerate(position)}
        kinds = (kind for _, kind in self.columns)
        values = ", ".join(f"{{{name}:{kind}}}" for name, kind in zip(named, kinds, strict=True))
        return Selection(f"({self.by}) {sign} ({values})", named)


ARRIVAL = Order((("stream_seq", "UInt64"), ("line", "UInt16")))
TIME = Order((("toUnixTimestamp64Micro(at)", "Int64"), ("id", "String")))


@dataclass(frozen=True, slots=True)
class Piece:
    """Encoded rows; `last` is the position of the last row."""

    rows: int
    last: tuple[Any, ...]
    data: bytes


async def read_piece(
    store: RowReader, selection: Selection, order: Order, form: str, max_bytes: int, max_rows: int
) -> Piece | None:
    """Return the first selected rows within these limits, but at least one row.

    `max_bytes` limits the sum of the events' JSON lines. Return None if no row is selected.
    """
    # Column names are constants of this module; every value is bound.
    cut = (
        f"SELECT {order.by}, n FROM (SELECT *, sum(length(detail)) OVER w AS bytes,"  # noqa: S608
        f" row_number() OVER w AS n FROM (SELECT * FROM events WHERE {selection.condition}"
        f" ORDER BY {order.by} LIMIT {max_rows})"
        f" WINDOW w AS (ORDER BY {order.by} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))"
        f" WHERE bytes <= {max_bytes} OR n = 1 ORDER BY n DESC LIMIT 1"
    )
    found = await read_table(store, cut, selection.parameters)
    if not found:
        return None
    *last, count = found[0]
    rows = intersection(selection, order.up_to(tuple(last)))
    return Piece(int(count), tuple(last), await _encode_rows(store, rows, order, form))


def intersection(one: Selection, other: Selection) -> Selection:
    """Return the selection of the rows that both selections contain."""
    return one.and_(other.condition, **other.parameters)


async def read_table(store: RowReader, sql: str, parameters: Parameters) -> list[list[Any]]:
    """Return all rows of a short result."""
    lines = await store.read(sql, "JSONCompactEachRow", parameters)
    return [msgspec.json.decode(line) for line in lines.split(b"\n") if line]


async def _encode_rows(store: RowReader, rows: Selection, order: Order, form: str) -> bytes:
    columns = "*" if form == PARQUET else "detail"
    sql = f"SELECT {columns} FROM events WHERE {rows.condition} ORDER BY {order.by}"  # noqa: S608
    if form == PARQUET:
        return await store.read(sql, "Parquet", rows.parameters)
    lines = await store.read(sql, "TSVRaw", rows.parameters)  # a line has no newline in it
    if form == JSONL:
        return lines
    if form == OCSF:
        return await asyncio.to_thread(_as_ocsf, lines)
    raise InvalidError(f"Unknown format '{form}'; use one of {', '.join(FORMATS)}.")


def _as_ocsf(lines: bytes) -> bytes:
    return b"".join(b"%b\n" % ocsf.encode_ocsf(line) for line in lines.split(b"\n") if line)
