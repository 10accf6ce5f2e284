"""Begins afresh on a running NATS server: no facts, no entries, everything provisioned."""

from nats.js.errors import ServerError

from harness.engines import TESTER, NatsServer
from harness.waiting import until_told
from toolbus_common.bus import Bus
from toolbus_common.provision import provision

STILL_CLEARING = 10049  # NATS: error creating store for stream


async def begin_afresh(tester: Bus) -> None:
    """Drop every stream and bucket, which no user of Toolbus may, and lay them down again.

    A bucket nobody has ever written to stays: most tests use three of the twenty.
    """
    stream = tester.client.jetstream()

    async def cleared() -> bool:
        used = [
            each.config.name or ""
            for each in await stream.streams_info()
            if each.state.last_seq or not (each.config.name or "").startswith("KV_")
        ]
        for name in used:
            await stream.delete_stream(name)
        return not used  # what a room of the test before was about to write is there by now

    async def laid_down() -> bool:
        try:
            await provision(tester)
        except ServerError as error:  # it is still clearing away what was there before
            if error.err_code != STILL_CLEARING:
                raise
            return False
        return True

    await until_told(cleared, "nothing is there")
    await until_told(laid_down, "streams and buckets")


async def provisioned(server: NatsServer) -> None:
    """Lay down streams and buckets on a server of a test's own."""
    tester = Bus(TESTER, server.url, (server.seeds / f"{TESTER}.seed").read_text())
    await tester.open()
    try:
        await provision(tester)
    finally:
        await tester.close()
