"""Rows of an events file that the lite form left, for their move to ClickHouse."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from toolbus_audit.clickhouse.row_mapper import CheckpointRow, CosignatureRow, DeadRow, EventRow
from toolbus_audit.events_file.store import open_file

SIGNED_AT_ONCE = 1000
_SIGNED = {"checkpoints": CheckpointRow, "cosignatures": CosignatureRow}
_texts = msgspec.json.Decoder(tuple[str, ...]).decode


class MovedRows:
    """The file, used by one thread at a time. The methods raise `sqlite3.Error`."""

    def __init__(self, path: Path) -> None:
        self._file = open_file(path)

    def close(self) -> None:
        """Close the file; SQLite then has written everything into it."""
        self._file.close()

    def newest(self) -> dict[str, int]:
        """Return the highest sequence number of each stream whose events are in the file."""
        sql = "SELECT stream, max(stream_seq) FROM event_rows GROUP BY stream"
        return dict(self._file.execute(sql).fetchall())

    def events(self, stream: str, after: int, maximum: int) -> list[EventRow]:
        """Return the events of the next messages of a stream, at most of `maximum` messages."""
        chosen = (
            "SELECT DISTINCT stream_seq FROM event_rows WHERE stream = ?1 AND stream_seq > ?2"
            " ORDER BY stream_seq LIMIT ?3"
        )
        where = f"stream = ?1 AND stream_seq IN ({chosen}) ORDER BY stream_seq, line"
        return list(self._rows(EventRow, "event_rows", where, (stream, after, maximum)))

    def dead_letters(self) -> list[DeadRow]:
        """Return all dead letters."""
        return list(self._rows(DeadRow, "dead_rows", "true", ()))

    def signed(self) -> list[tuple[str, list[Any]]]:
        """Return checkpoints and cosignatures in blocks, with the name of their table."""
        found = []
        for table, kind in _SIGNED.items():
            rows = list(self._rows(kind, f"{table.removesuffix('s')}_rows", "true", ()))
            starts = range(0, len(rows), SIGNED_AT_ONCE)
            found += [(table, rows[start : start + SIGNED_AT_ONCE]) for start in starts]
        return found

    def _rows(
        self, kind: type[Any], table: str, where: str, values: Sequence[Any]
    ) -> Iterator[Any]:
        fields = msgspec.structs.fields(kind)
        names = ", ".join(f'"{each.name}"' for each in fields)
        for row in self._file.execute(f"SELECT {names} FROM {table} WHERE {where}", values):  # noqa: S608
            given = zip(fields, row, strict=True)
            yield kind(*(_value(each.type, value) for each, value in given))


def _value(kind: Any, value: Any) -> Any:
    if kind is bool:
        return bool(value)
    return _texts(value) if kind == tuple[str, ...] else value
