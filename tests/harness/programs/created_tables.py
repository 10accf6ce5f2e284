"""Creation of the embedded ClickHouse's tables: `python created_tables.py STATE_DIRECTORY`."""

import asyncio
import sys
from pathlib import Path

from pydantic import SecretStr

from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.settings import Settings


async def create(state_dir: Path) -> None:
    """Create the tables in a state directory that has none."""
    store = ClickHouse(Settings(state_dir=state_dir, clickhouse_url=SecretStr("")))
    await store.open()
    await store.command("TRUNCATE TABLE store_identity")  # each copy gets an id of its own
    await store.close()


if __name__ == "__main__":
    asyncio.run(create(Path(sys.argv[1])))
