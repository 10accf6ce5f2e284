"""Events per second from a full stream into rows, on two cores.

The real contracts and the real publisher make the events, with several calls per message as under
load. A second measurement without a demand has one call per message, the worst case. Sealing runs
at the same time, as in production.
"""

import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from figures import Row, row
from harness.audit.events import allowed, bus_of, completed
from harness.engines.bus_reset import provisioned
from harness.gateway.cluster import Cluster
from processes import cpu_seconds
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.messaging.outbox import Outbox
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.settings import Settings

CORES = 2
MIN_PER_SECOND = 20_000.0  # events per second
TOGETHER = 32  # calls published at the same moment
LOOK = 0.1


def ingest(events: int) -> Iterator[Row]:
    """Return events per second for both kinds of messages."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    many, lone = _measured(events, alone=False), _measured(events // 4, alone=True)
    what = "events a second into ClickHouse, embedded"
    yield row(what, many.pop("per_second"), ">=", MIN_PER_SECOND, **many)
    what = "the same, a message for each event"
    yield {"what": what, "value": lone.pop("per_second"), "demand": "", "met": True, **lone}


def _measured(events: int, *, alone: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="toolbus-ingest-") as name:
        return _ingested(Path(name), events, alone=alone)


def _ingested(directory: Path, events: int, *, alone: bool) -> dict[str, Any]:
    cluster = Cluster(directory)
    cluster.nats.start()
    try:
        cluster.nats.copy_seeds(cluster.state_dir)
        asyncio.run(provisioned(cluster.nats))
        settings = Settings(state_dir=cluster.state_dir, nats_url=cluster.nats.url)
        asyncio.run(_filled(settings, events, alone=alone))
        audit = cluster.run("audit")
        return cluster.on_the_bus(lambda bus: _watched(bus, events, audit.pid))
    finally:
        for process in cluster.every():
            process.kill()
        cluster.nats.kill()


async def _filled(settings: Settings, events: int, *, alone: bool) -> None:
    """Publish both events of every call as the services do."""
    async with AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(bus_of(name, settings)) for name in _SAYERS]
        writers = [_writer(bus, settings.state_dir, alone=alone) for bus in buses]
        for _ in range(events // 2 // TOGETHER):
            calls = [secrets.token_hex(12) for _ in range(TOGETHER)]
            await asyncio.gather(
                *(writers[0].publish_durable(allowed(**_fields(call))) for call in calls)
            )
            await asyncio.gather(
                *(writers[1].publish_durable(completed(**_fields(call))) for call in calls)
            )
        for writer in writers:
            await writer.close(5.0)


_SAYERS = ("policy", "executor")


def _fields(call: str) -> dict[str, Any]:
    return {"call_id": call, "trace_id": secrets.token_hex(16), "customer": "acme"}


def _writer(bus: Bus, directory: Path, *, alone: bool) -> EventPublisher:
    async def each(envelope: Envelope) -> None:
        lines = envelope.payload.split(b"\n")
        await asyncio.gather(
            *(
                bus.store(Envelope(envelope.subject, f"{envelope.message_id}.{number}", line))
                for number, line in enumerate(lines)
            )
        )

    publish = each if alone else bus.store
    return EventPublisher(publish, Outbox(directory / f"{bus.name}.events", 1 << 20))


async def _watched(bus: Bus, events: int, pid: int) -> dict[str, Any]:
    """Return the time from the first row to the last in audit's own count, and audit's CPU."""
    queries, seen = RequestReply("operator", bus), list[tuple[float, int, float]]()
    while not seen or seen[-1][1] < events // 2 // TOGETHER * TOGETHER * 2:
        await asyncio.sleep(LOOK)
        for each in await queries.request_all(LOOK):
            rows = int(each.details["rows"]) if each.service == "audit" else 0
            if rows or (each.ready and len(seen) < 2):  # start at the last time without rows
                seen = seen if rows else []
                seen.append((time.monotonic(), rows, cpu_seconds(pid)))
    (begin, first, used), (end, last, at_end) = seen[0], seen[-1]
    return {
        "per_second": (last - first) / (end - begin),
        "events": last - first,
        "seconds": end - begin,
        "cpu_us_an_event": (at_end - used) / (last - first) * 1e6,
    }
