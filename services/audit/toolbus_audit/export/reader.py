"""Reads selected rows of `events` in pieces, each as bytes of a format and none too large."""

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from toolbus_audit.export import ocsf
from toolbus_audit.export.selection import Parameters, Selection
from toolbus_common.errors import InvalidError

JSONL, OCSF, PARQUET = "jsonl", "ocsf", "parquet"
FORMATS = (JSONL, OCSF, PARQUET)


class Reads(Protocol):
    """What reads the tables."""

    async def read(self, sql: str, form: str, parameters: Parameters) -> bytes:
        """The answer to a statement of our own, in one of ClickHouse's formats."""


@dataclass(frozen=True, slots=True)
class Order:
    """By which columns pieces follow each other, each with its ClickHouse type."""

    columns: tuple[tuple[str, str], ...]

    @property
    def by(self) -> str:
        """For ORDER BY."""
        return ", ".join(name for name, _ in self.columns)

    def after(self, place: tuple[Any, ...]) -> Selection:
        """What lies behind a place."""
        return self._beside(">", "after", place)

    def up_to(self, place: tuple[Any, ...]) -> Selection:
        """What lies before a place, and the place."""
        return self._beside("<=", "upto", place)

    def _beside(self, sign: str, prefix: str, place: tuple[Any, ...]) -> Selection:
        named = {f"{prefix}{at}": value for at, value in enumerate(place)}
        kinds = (kind for _, kind in self.columns)
        values = ", ".join(f"{{{name}:{kind}}}" for name, kind in zip(named, kinds, strict=True))
        return Selection(f"({self.by}) {sign} ({values})", named)


ARRIVAL = Order((("stream_seq", "UInt64"), ("line", "UInt16")))
TIME = Order((("toUnixTimestamp64Micro(at)", "Int64"), ("id", "String")))


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows; `last` is the place of the last of them."""

    rows: int
    last: tuple[Any, ...]
    data: bytes


async def piece(
    store: Reads, chosen: Selection, order: Order, form: str, most_bytes: int, most_rows: int
) -> Piece | None:
    """The first of the chosen rows, of so many bytes and rows; one at least, if there is one."""
    # The names of columns are this module's own; every value is bound.
    cut = (
        f"SELECT {order.by}, n FROM (SELECT *, sum(length(detail)) OVER w AS bytes,"  # noqa: S608
        f" row_number() OVER w AS n FROM (SELECT * FROM events WHERE {chosen.condition}"
        f" ORDER BY {order.by} LIMIT {most_rows})"
        f" WINDOW w AS (ORDER BY {order.by} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))"
        f" WHERE bytes <= {most_bytes} OR n = 1 ORDER BY n DESC LIMIT 1"
    )
    found = await table(store, cut, chosen.parameters)
    if not found:
        return None
    *last, count = found[0]
    rows = both(chosen, order.up_to(tuple(last)))
    return Piece(int(count), tuple(last), await _rendered(store, rows, order, form))


def both(one: Selection, other: Selection) -> Selection:
    """The rows both choose."""
    return one.and_(other.condition, **other.parameters)


async def table(store: Reads, sql: str, parameters: Parameters) -> list[list[Any]]:
    """The rows of a short answer."""
    lines = await store.read(sql, "JSONCompactEachRow", parameters)
    return [msgspec.json.decode(line) for line in lines.split(b"\n") if line]


async def _rendered(store: Reads, rows: Selection, order: Order, form: str) -> bytes:
    columns = "*" if form == PARQUET else "detail"
    sql = f"SELECT {columns} FROM events WHERE {rows.condition} ORDER BY {order.by}"  # noqa: S608
    if form == PARQUET:
        return await store.read(sql, "Parquet", rows.parameters)
    lines = await store.read(sql, "TSVRaw", rows.parameters)  # a line has no newline in it
    if form == JSONL:
        return lines
    if form == OCSF:
        return await asyncio.to_thread(_as_events, lines)
    raise InvalidError(f"There is no format '{form}'; the formats are {', '.join(FORMATS)}.")


def _as_events(lines: bytes) -> bytes:
    return b"".join(b"%b\n" % ocsf.encoded(line) for line in lines.split(b"\n") if line)
