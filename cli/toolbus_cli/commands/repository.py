"""Access of commands to the configuration repository."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from toolbus_cli import config_client
from toolbus_cli.installation import find, joined
from toolbus_common.config_store.repository import ConfigRepository

T = TypeVar("T")


@asynccontextmanager
async def with_repository(state_dir: Path) -> AsyncIterator[ConfigRepository]:
    """Connect to an installation and yield its configuration repository."""
    place = find(state_dir)
    async with joined(place) as bus, config_client.opened(bus, place.state) as repository:
        yield repository


def at_work(state_dir: Path, work: Callable[[ConfigRepository], Awaitable[T]]) -> T:
    """Run an operation with the configuration repository, then disconnect."""

    async def do() -> T:
        async with with_repository(state_dir) as repository:
            return await work(repository)

    return asyncio.run(do())
