"""Hard links of the embedded tables for a backup of a running installation."""

from typing import Any, Protocol

from toolbus_common.contracts import FreezeReply, FreezeRequest
from toolbus_common.errors import InvalidError

# A roll-up writes its mark (tables `…_done`) after its rows. The marks are copied first, so that
# each copied mark has all its rows.
_TABLES = (
    "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
    " ORDER BY endsWith(name, '_done') DESC, name"
)


class Store(Protocol):
    """Store of the tables."""

    @property
    def embedded(self) -> bool:
        """Whether the engine runs inside this process."""

    async def select(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query of audit itself and return its rows."""

    async def command(self, sql: str) -> None:
        """Run a command of audit itself to completion."""


async def freeze(store: Store, request: FreezeRequest) -> FreezeReply:
    """Freeze one table after the other.

    Raises:
        InvalidError: the tables are in a server, which has its own backups.
        StoreDownError: the store is not open.

    """
    if not store.embedded:
        raise InvalidError(
            "The tables are in a ClickHouse server (TOOLBUS_CLICKHOUSE_URL); back it up with its "
            "own BACKUP statement."
        )
    names = [str(name) for (name,) in await store.select(_TABLES)]
    for name in names:
        await store.command(f"ALTER TABLE `{name}` FREEZE WITH NAME '{request.name}'")
    return FreezeReply(tables=tuple(names))
