"""Reset of a running NATS server: it removes all events and entries, and provisions all streams."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nats.js.errors import ServerError

from harness.engines.nats_server import NatsAt, NatsServer, tester_of
from harness.waits import PATIENCE, until, until_async
from toolbus_common.nats.accounts import STORE
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.provision import provision

_STORES = ("KV_", "OBJ_")
STILL_CLEARING = 10049  # NATS: error creating store for stream


@asynccontextmanager
async def connect_as_tester(server: NatsAt, account: str = STORE) -> AsyncIterator[Bus]:
    """Connect as the user with all permissions in an account."""
    tester = tester_of(account)
    bus = Bus(tester, server.url, server.seed(tester))
    await bus.open()
    try:
        yield bus
    finally:
        await bus.close()


async def reset_bus(tester: Bus, streams: Path | None = None) -> None:
    """Delete every stream and bucket and provision them again.

    A bucket or an object store without any revision is not deleted, because most tests use only
    three of the twenty. `streams` is the directory in which the server stores streams. The server
    confirms a deletion before it removes the files. A stream that is provisioned while the old
    files exist would contain the old messages, so this function waits for the removal.
    """
    stream = tester.client.jetstream(timeout=PATIENCE)
    kept: set[str] = set()

    async def cleared() -> bool:
        there = {each.config.name or "": each.state for each in await stream.streams_info()}
        used = [name for name in there if there[name].last_seq or not name.startswith(_STORES)]
        for name in used:
            await stream.delete_stream(name)
        kept.clear()
        kept.update(there.keys() - used)
        return not used  # also after late writes of the previous test's services

    def gone() -> bool:
        return streams is None or {each.name for each in streams.glob("*")} <= kept

    async def provisioned_again() -> bool:
        try:
            await provision(tester)
        except ServerError as error:  # the server is still removing the previous files
            if error.err_code != STILL_CLEARING:
                raise
            return False
        return True

    await until_async(cleared, "nothing is there")
    await until(gone, "the files of what is deleted are")
    await until_async(provisioned_again, "streams and buckets")


async def provisioned(server: NatsServer) -> None:
    """Provision the streams and buckets of a test's separate server."""
    async with connect_as_tester(server.at) as tester:
        await provision(tester)
