"""Begins afresh on a running NATS server: no facts, no entries, everything provisioned."""

from contextlib import suppress

from nats.js.errors import NotFoundError, ServerError

from harness.engines import TESTER, NatsServer
from harness.waiting import until_told
from toolbus_common.bus import Bus
from toolbus_common.provision import BUCKETS, FACTS, OBJECTS, provision

STILL_CLEARING = 10049  # NATS: error creating store for stream


async def begin_afresh(tester: Bus) -> None:
    """Drop every stream and bucket, which no user of Toolbus may, and lay them down again."""
    stream = tester.client.jetstream()
    buckets = (f"KV_{bucket.bucket}" for bucket in BUCKETS)
    for name in (FACTS, *buckets, *(f"OBJ_{each}" for each in OBJECTS)):
        with suppress(NotFoundError):
            await stream.delete_stream(name)

    async def laid_down() -> bool:
        try:
            await provision(tester)
        except ServerError as error:  # it is still clearing away what was there before
            if error.err_code != STILL_CLEARING:
                raise
            return False
        return True

    await until_told(laid_down, "streams and buckets")


async def provisioned(server: NatsServer) -> None:
    """Lay down streams and buckets on a server of a test's own."""
    tester = Bus(TESTER, server.url, (server.seeds / f"{TESTER}.seed").read_text())
    await tester.open()
    try:
        await provision(tester)
    finally:
        await tester.close()
