"""Publish checkpoints as rows in ClickHouse, and as one file per customer that can be copied."""

import asyncio
import logging
from collections import deque
from hashlib import sha256
from pathlib import Path
from typing import Protocol, cast

import msgspec

from toolbus_audit.clickhouse.errors import RowsRejectedError, StoreDownError
from toolbus_audit.clickhouse.row_mapper import CheckpointRow, CosignatureRow, Written
from toolbus_audit.transparency_log.log_signer import Log

log = logging.getLogger(__name__)

MAX_WAITING = 10_000  # rows queued while ClickHouse is down; the files contain all rows


class Store(Protocol):
    """Store of checkpoint rows."""

    async def insert(self, table: str, batch: Written, token: str) -> None:
        """Insert rows. If the token was used before, nothing is inserted."""


Row = CheckpointRow | CosignatureRow
_TABLES: dict[type[Row], str] = {CheckpointRow: "checkpoints", CosignatureRow: "cosignatures"}


class CheckpointPublisher:
    """Publisher of checkpoints. If ClickHouse is down, signing continues."""

    def __init__(self, store: Store, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self._lock = asyncio.Lock()  # both the signer and the witness client publish
        self._waiting: dict[type[Row], deque[Row]] = {
            kind: deque(maxlen=MAX_WAITING) for kind in _TABLES
        }

    async def publish(self, signed: list[tuple[str, Log]], witness: str = "") -> None:
        """Publish new checkpoints or, if `witness` is set, its cosignatures of checkpoints.

        Files are written before this method returns. Rows are inserted once ClickHouse accepts
        them.
        """
        async with self._lock:
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
            await self._store.insert(table, cast("Written", rows), f"checkpoint-{token}")
        except (StoreDownError, RowsRejectedError) as error:
            log.info("checkpoint.not_in_table", extra={"reason": str(error)})
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
