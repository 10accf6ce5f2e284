"""Begins afresh on a running NATS server: no facts, no entries, everything provisioned."""

from contextlib import suppress

from nats.js.errors import NotFoundError

from harness.engines import TESTER, NatsServer
from toolbus_common.bus import Bus
from toolbus_common.provision import BUCKETS, FACTS, OBJECTS, provision


async def begin_afresh(tester: Bus) -> None:
    """Drop every stream and bucket, which no user of Toolbus may, and lay them down again."""
    stream = tester.client.jetstream()
    buckets = (f"KV_{bucket.bucket}" for bucket in BUCKETS)
    for name in (FACTS, *buckets, *(f"OBJ_{each}" for each in OBJECTS)):
        with suppress(NotFoundError):
            await stream.delete_stream(name)
    await provision(tester)


async def provisioned(server: NatsServer) -> None:
    """Lay down streams and buckets on a server of a test's own."""
    tester = Bus(TESTER, server.url, (server.seeds / f"{TESTER}.seed").read_text())
    await tester.open()
    await provision(tester)
    await tester.close()
