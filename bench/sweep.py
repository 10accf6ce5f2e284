"""Cost of the sweeper's look-up: intents of one customer for its expired reservations.

`make bench-sweep` writes intents into a stream, as policy does, and looks for calls without one:
the worst case, because it reads to the end. A found intent ends the reading.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time, time

from harness.audit.events import allowed, events_of
from harness.engines.bus_reset import provisioned
from harness.engines.nats_server import NatsServer
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import EVENTS
from toolbus_common.settings import Settings
from toolbus_policy.ledger.ledger import ExpiredReservation
from toolbus_policy.ledger.recovery.intent_evidence import may_have_run
from toolbus_policy.ledger.reservation import CallContext

INTENTS = 100_000
AT_ONCE = 64  # calls of one moment, which share a message; the second argument overrides it
OVERDUE = 1000  # reservations that are looked up together


async def _measure(server: NatsServer, directory: Path, intents: int, at_once: int) -> None:
    await provisioned(server)
    server.copy_seeds(directory)
    settings = Settings(state_dir=directory, nats_url=server.url)
    async with events_of("policy", settings, directory) as events:
        for _ in range(0, intents, at_once):
            await asyncio.gather(*(events.publish_durable(allowed()) for _ in range(at_once)))
    seed = settings.seed("policy")
    bus = Bus("policy", settings.nats_url, seed.get_secret_value() if seed else None)
    await bus.open()
    about = CallContext("docs", "search", "bot", "", "")
    expired = [
        ExpiredReservation(f"none{n}", "acme", int(time()), 2000, about) for n in range(OVERDUE)
    ]
    wall, cpu = perf_counter(), process_time()
    assert not await may_have_run(bus, "acme", expired)
    wall, cpu = perf_counter() - wall, process_time() - cpu
    messages = await bus.newest(EVENTS)
    await bus.close()
    print(
        f"{intents} intents in {messages} messages, {OVERDUE} reservations:"
        f" {wall:.2f} s, {cpu:.2f} s of CPU, {intents / wall:,.0f} intents/s,"
        f" {1e6 * cpu / intents:.2f} µs of CPU an intent"
    )


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    wanted = [*given, *(INTENTS, AT_ONCE)[len(given) :]]
    with tempfile.TemporaryDirectory() as made:
        where = Path(made)
        with NatsServer(where / "nats").running() as started:
            asyncio.run(_measure(started, where / "state", *wanted))
