"""Queries of commands to audit: over the bus, or to the gateway of the context in use."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from toolbus_cli.installation import find, joined
from toolbus_cli.remote import contexts
from toolbus_cli.remote.queries import RemoteQueries
from toolbus_common.evidence.collection import Queries
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR


@asynccontextmanager
async def opened_queries(state_dir: Path) -> AsyncIterator[Queries]:
    """Connect to the installation, or to the context in use. Raises `CommandError`."""
    if (context := contexts.chosen()) is not None:
        yield RemoteQueries(context)
        return
    async with joined(find(state_dir)) as bus:
        yield RequestReply(OPERATOR, bus)
