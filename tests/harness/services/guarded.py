"""Guards of calls in tests, with placeholders that are stored in memory."""

import asyncio
from typing import Any, cast

from harness.services.call_runner import RecordedEvents
from toolbus_common.config import Guard
from toolbus_common.guards.placeholders import Placeholders
from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_common.plugins.checks import PluginChecks
from toolbus_executor.guards.call_guards import CallGuards

# A key in the form of GitHub's, and one in the form of Amazon's.
TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
AWS_KEY = "AKIAQ4ZRT7NXMW2VHG5K"


class MemoryBucket:
    """A bucket in memory."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}

    async def put(self, key: str, value: bytes) -> None:
        """Write an entry."""
        await asyncio.sleep(0)
        self.entries[key] = value

    async def get(self, key: str) -> Change | None:
        """Return an entry."""
        await asyncio.sleep(0)
        value = self.entries.get(key)
        return Change(key, value, 1) if value is not None else None


def guards_of(
    events: RecordedEvents, plugins: PluginChecks | None = None, **guards: Any
) -> CallGuards:
    """Return the guards of calls; each of `guards` is the settings of one."""
    declared = {name: Guard.model_validate(each) for name, each in guards.items()}
    bucket = MemoryBucket()

    async def opened() -> Bucket:
        return cast("Bucket", bucket)

    return CallGuards(
        lambda: declared, Placeholders(lambda: [b"k" * 32], opened), events, plugins=plugins
    )
