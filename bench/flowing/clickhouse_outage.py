"""ClickHouse unavailable for minutes while calls continue: lost events and speed of recovery.

The embedded engine is part of audit: audit is killed and started again. In server mode the server
is killed: an HTTP shim over the same engine.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Row, console, row
from harness.engines.clickhouse_server import ClickHouseServer
from harness.gateway.kill_campaign import KillCampaign
from harness.waits import until_blocking
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import EVENTS

MIN_RATIO = 5.0
NEAR = 2.0  # seconds of live events; a consumer that is no further behind has caught up
LOOK = 0.1
PATIENCE = 600.0


def away(mode: str, rate: float, minutes: float) -> Iterator[Row]:
    """Return the figures of one mode, `embedded` or `server`."""
    with tempfile.TemporaryDirectory(prefix="toolbus-away-") as name:
        server = ClickHouseServer(Path(name) / "clickhouse") if mode == "server" else None
        fields = {"TOOLBUS_CLICKHOUSE_URL": server.url} if server else {}
        if server:
            server.start()
        try:
            with KillCampaign(
                Path(name), rate, TOOLBUS_OUTCOME_GRACE="1", **fields
            ).running() as killing:
                yield from _away(killing, server, mode, minutes * 60)
        finally:
            if server:
                server.kill()


def _away(
    killing: KillCampaign, server: ClickHouseServer | None, mode: str, seconds: float
) -> Iterator[Row]:
    with killing.loaded() as load:
        until_blocking(lambda: len(load.succeeded) > load.rate, "calls succeed")
        before = _kept(killing)
        if server:
            server.kill()
        else:
            killing.cluster.processes["audit"].pop().kill()
        began = time.monotonic()
        time.sleep(seconds)
        live = (_kept(killing) - before) / (time.monotonic() - began)
        if server:
            server.start()
        else:
            killing.cluster.run("audit").wait_ready()
        caught_up = killing.cluster.on_the_bus(lambda bus: _caught_up(bus, live))
    console.print(f"{mode}: live {live:,.0f} messages per second, recovery at {caught_up:,.0f}")
    found = killing.looked(f"ClickHouse outage, {mode}", load)
    more = {"live": live, "caught_up": caught_up, "seconds": seconds, "events": found.events}
    what = f"ClickHouse outage, {mode}"
    yield row(f"{what}: events missing", found.missing + found.lost, "<=", 0, **more)
    yield row(f"{what}: events twice", found.doubled_rows, "<=", 0)
    yield row(f"{what}: catching up ÷ live", caught_up / live, ">=", MIN_RATIO, **more)


def _kept(killing: KillCampaign) -> int:
    """Return the number of messages in the stream."""
    return killing.cluster.on_the_bus(lambda bus: bus.newest(EVENTS))


async def _caught_up(bus: Bus, live: float) -> float:
    """Return messages per second, from the first written one to the last waiting one."""
    give_up, first = time.monotonic() + PATIENCE, None
    while time.monotonic() < give_up:
        newest, done = await bus.newest(EVENTS), await _done(bus)
        now = time.monotonic()
        first = first or (now, done)
        if done > first[1] and newest - done < NEAR * live:
            return (done - first[1]) / (now - first[0])
        if done == first[1]:
            first = (now, done)  # audit has not started to write
        await asyncio.sleep(LOOK)
    raise TimeoutError("audit never caught up")


async def _done(bus: Bus) -> int:
    """Return the sequence up to which all messages are written."""
    return int(min(await bus.finished(EVENTS, "audit"), await bus.newest(EVENTS)))
