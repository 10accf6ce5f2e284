"""What an operator does to a running Toolbus from outside: declare, revoke, ask."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from harness.waiting import PATIENCE
from toolbus_common.asklane import AskLane
from toolbus_common.bus import Bus
from toolbus_common.contracts import AuditQueried, RoomStatus, RowsFound
from toolbus_common.declared import Declaration, Key
from toolbus_common.errors import ToolbusError
from toolbus_common.permissions import OPERATOR
from toolbus_common.provision import CONFIG
from toolbus_common.snapshot import DECLARATION, KEY_PREFIX, hash_of, proof_of

R = TypeVar("R")


def key(secret: str, *tools: str, **fields: Any) -> Key:
    """A declared key."""
    return Key.model_validate(
        {"secret_hash": hash_of(proof_of(secret)), "tools": tools or ("*",), **fields}
    )


class Operating:
    """An operator at the bus of `state_dir`."""

    state_dir: Path
    nats_url: str

    def declare(self, declaration: Declaration) -> None:
        """Put a whole configuration in force."""
        self.write(DECLARATION, declaration.model_dump_json().encode())

    def put_key(self, name: str, made: Key) -> None:
        """Make, change or revoke one key."""
        self.write(f"{KEY_PREFIX}{name}", made.model_dump_json().encode())

    def write(self, entry: str, value: bytes) -> None:
        """Write an entry of the configuration."""

        async def put(bus: Bus) -> None:
            await (await bus.bucket(CONFIG)).put(entry, value)

        self.on_the_bus(put)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What audit answers."""

        async def ask(bus: Bus) -> RowsFound:
            return await AskLane(OPERATOR, bus).ask(AuditQueried(sql=sql), RowsFound)

        found = self.on_the_bus(ask)
        return [dict(zip(found.columns, row, strict=True)) for row in found.rows]

    def eventual_rows(self, sql: str, enough: int = 1) -> list[dict[str, Any]]:
        """What audit answers once it has that many rows."""
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                rows = self.rows(sql)
            except ToolbusError as error:
                rows, last = [], str(error)
            else:
                last = f"{len(rows)} rows: {rows!r}"
            if len(rows) >= enough:
                return rows
            assert time.monotonic() < give_up, f"{sql}: {last}"
            time.sleep(0.1)

    def statuses(self) -> list[RoomStatus]:
        """How every replica of every room is."""
        return self.on_the_bus(lambda bus: AskLane(OPERATOR, bus).ask_all())

    def on_the_bus(self, work: Callable[[Bus], Awaitable[R]]) -> R:
        """Do something as the operator."""

        async def do() -> R:
            seed = (self.state_dir / "nkeys" / f"{OPERATOR}.seed").read_text().strip()
            bus = Bus(OPERATOR, self.nats_url, seed)
            await bus.open()
            try:
                return await work(bus)
            finally:
                await bus.close()

        return asyncio.run(do())
