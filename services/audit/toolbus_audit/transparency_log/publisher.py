"""Tells what was sealed: rows in ClickHouse, and a file for each customer to be copied away."""

import asyncio
import logging
from collections import deque
from hashlib import sha256
from pathlib import Path
from typing import Protocol, cast

import msgspec

from toolbus_audit.clickhouse.errors import StoreDownError, UnreadableError
from toolbus_audit.clickhouse.row_mapper import CheckpointRow, CosignatureRow, Written
from toolbus_audit.transparency_log.sealer import Log

log = logging.getLogger(__name__)

MOST_WAITING = 10_000  # rows kept while ClickHouse is away; the files have them all


class Store(Protocol):
    """What keeps the rows."""

    async def insert(self, table: str, what: Written, token: str) -> None:
        """Write the rows; the same token again writes nothing."""


Row = CheckpointRow | CosignatureRow
_TABLES: dict[type[Row], str] = {CheckpointRow: "checkpoints", CosignatureRow: "cosignatures"}


class Publishing:
    """Where checkpoints are told. ClickHouse may be away: that holds up no sealing."""

    def __init__(self, store: Store, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self._turn = asyncio.Lock()  # the sealer tells, and so does whoever has them cosigned
        self._waiting: dict[type[Row], deque[Row]] = {
            kind: deque(maxlen=MOST_WAITING) for kind in _TABLES
        }

    async def tell(self, signed: list[tuple[str, Log]], witness: str = "") -> None:
        """Tell of checkpoints, or of those that this witness cosigned.

        They are in the files at once, in the table when it is there.
        """
        async with self._turn:
            rows = [_row(customer, each, witness) for customer, each in signed]
            if rows:
                await asyncio.to_thread(self._write, rows)
            for row in rows:
                self._waiting[type(row)].append(row)
            for kind, table in _TABLES.items():
                await self._insert(table, self._waiting[kind])

    async def _insert(self, table: str, waiting: deque[Row]) -> None:
        if not waiting:
            return
        rows = list(waiting)
        token = sha256("".join(row.note for row in rows).encode()).hexdigest()
        try:
            await self._store.insert(table, cast("Written", rows), f"seal-{token}")
        except (StoreDownError, UnreadableError) as error:
            log.info("seal.not_in_table", extra={"reason": str(error)})
        else:
            waiting.clear()

    def _write(self, rows: list[Row]) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for row in rows:
            with (self._directory / f"{row.customer}.jsonl").open("ab") as file:
                file.write(msgspec.json.encode(row) + b"\n")


def _row(customer: str, signed: Log, witness: str) -> Row:
    if witness:
        return CosignatureRow(customer, signed.stream, signed.size, signed.at, witness, signed.note)
    return CheckpointRow(
        customer, signed.stream, signed.size, signed.at, signed.to, signed.edge, signed.note
    )
