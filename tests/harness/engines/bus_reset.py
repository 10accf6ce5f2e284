"""Begins afresh on a running NATS server: no events, no entries, everything provisioned."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nats.js.errors import ServerError

from harness.engines.nats_server import NatsAt, NatsServer, tester_of
from harness.waits import PATIENCE, until, until_told
from toolbus_common.nats.accounts import STORE
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import provision

STILL_CLEARING = 10049  # NATS: error creating store for stream


@asynccontextmanager
async def joined_by_tester(server: NatsAt, account: str = STORE) -> AsyncIterator[Bus]:
    """A connection of the user that may do everything in an account."""
    tester = tester_of(account)
    bus = Bus(tester, server.url, server.seed(tester))
    await bus.open()
    try:
        yield bus
    finally:
        await bus.close()


async def begin_afresh(tester: Bus, streams: Path | None = None) -> None:
    """Drop every stream and bucket, which no user of Toolbus may, and lay them down again.

    A bucket nobody has ever written to stays: most tests use three of the twenty. `streams` is the
    directory in which the server keeps them. It says that one is deleted before its files are; laid
    down again too soon, and while those of one deleted before are there, it has its old messages.
    """
    stream = tester.client.jetstream(timeout=PATIENCE)
    kept: set[str] = set()

    async def cleared() -> bool:
        there = {each.config.name or "": each.state for each in await stream.streams_info()}
        used = [name for name in there if there[name].last_seq or not name.startswith("KV_")]
        for name in used:
            await stream.delete_stream(name)
        kept.clear()
        kept.update(there.keys() - used)
        return not used  # what a service of the test before was about to write is there by now

    def gone() -> bool:
        return streams is None or {each.name for each in streams.glob("*")} <= kept

    async def laid_down() -> bool:
        try:
            await provision(tester)
        except ServerError as error:  # it is still clearing away what was there before
            if error.err_code != STILL_CLEARING:
                raise
            return False
        return True

    await until_told(cleared, "nothing is there")
    await until(gone, "the files of what is deleted are")
    await until_told(laid_down, "streams and buckets")


async def provisioned(server: NatsServer) -> None:
    """Lay down streams and buckets on a server of a test's own."""
    async with joined_by_tester(server.at) as tester:
        await provision(tester)
