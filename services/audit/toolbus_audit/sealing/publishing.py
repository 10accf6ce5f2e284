"""Tells what was sealed: rows in ClickHouse, and a file for each customer to be copied away."""

import asyncio
import logging
from collections import deque
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import msgspec

from toolbus_audit.faults import StoreDownError, UnreadableError
from toolbus_audit.rows import CheckpointRow, Written
from toolbus_audit.sealing.sealer import Log

log = logging.getLogger(__name__)

MOST_WAITING = 10_000  # rows kept while ClickHouse is away; the files have them all


class Store(Protocol):
    """What keeps the rows."""

    async def insert(self, table: str, what: Written, token: str) -> None:
        """Write the rows; the same token again writes nothing."""


class Publishing:
    """Where checkpoints are told. ClickHouse may be away: that holds up no sealing."""

    def __init__(self, store: Store, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self._waiting: deque[CheckpointRow] = deque(maxlen=MOST_WAITING)

    async def tell(self, signed: list[tuple[str, Log]]) -> None:
        """Tell of checkpoints: in the files at once, in the table when it is there."""
        rows = [_row(scope, each) for scope, each in signed]
        if rows:
            await asyncio.to_thread(self._write, rows)
        self._waiting.extend(rows)
        if not self._waiting:
            return
        waiting = list(self._waiting)
        token = sha256("".join(row.note for row in waiting).encode()).hexdigest()
        try:
            await self._store.insert("checkpoints", waiting, f"seal-{token}")
        except (StoreDownError, UnreadableError) as error:
            log.info("seal.not_in_table", extra={"reason": str(error)})
        else:
            self._waiting.clear()

    def _write(self, rows: list[CheckpointRow]) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for row in rows:
            with (self._directory / f"{row.scope}.jsonl").open("ab") as file:
                file.write(msgspec.json.encode(row) + b"\n")


def _row(scope: str, signed: Log) -> CheckpointRow:
    return CheckpointRow(
        scope, signed.stream, signed.size, signed.at, signed.to, signed.edge, signed.note
    )
