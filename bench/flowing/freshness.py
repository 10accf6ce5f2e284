"""Delay from a call to its row, and age of the last checkpoint, under steady load."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from figures import Row, row
from harness.clients.steady_load import Load
from harness.gateway.kill_campaign import KillCampaign
from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.errors import ToolbusError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import EVENTS

MAX_UNSEEN, MAX_AGE = 5.0, 15.0
LOOK = 0.2
PATIENCE = 60.0
BEFORE, AT_ONCE = 2000, 8000  # messages: read again, and per query
_NEW = (
    "SELECT trace_id, max(stream_seq) FROM events WHERE event IN ('call.completed', 'call.failed')"
    " AND parent_id = '' AND stream_seq > {last} AND stream_seq <= {last} + {most}"
    " GROUP BY trace_id"
)


@dataclass
class Watched:
    """When each call's outcome first appeared as a row, and checkpoint ages, in seconds."""

    seen: dict[str, float] = field(default_factory=dict)
    ages: list[float] = field(default_factory=list)


def watching(killing: KillCampaign, seconds: float) -> Iterator[Row]:
    """Return all figures."""
    watched = Watched()
    sealed = killing.cluster.state_dir / "evidence" / "default.jsonl"
    with killing.loaded() as load:
        killing.cluster.on_the_bus(lambda bus: _watch(bus, watched, sealed, seconds))
    killing.cluster.on_the_bus(lambda bus: _until_seen(bus, watched, load))
    delays = sorted(
        max(0.0, watched.seen[each.call.trace] - each.at)
        for each in load.succeeded
        if each.call.trace in watched.seen
    )
    more: dict[str, Any] = {"calls": load.made, "p50": _at(delays, 0.5), "most": delays[-1]}
    yield row("call end to outcome row: s, p99", _at(delays, 0.99),
              "<=", MAX_UNSEEN, **more)  # fmt: skip
    yield row("calls without an outcome row", len(load.succeeded) - len(delays), "<=", 0)
    ages = sorted(watched.ages)
    yield row("age of the last checkpoint: s, p99", _at(ages, 0.99), "<=", MAX_AGE,
              p50=_at(ages, 0.5), most=ages[-1])  # fmt: skip


async def _watch(bus: Bus, watched: Watched, sealed: Path, seconds: float) -> None:
    until, last = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        last = await _look(bus, watched, last)
        if (at := await asyncio.to_thread(_signed, sealed)) is not None:
            watched.ages.append(time.time() - at)
        await asyncio.sleep(LOOK)


async def _until_seen(bus: Bus, watched: Watched, load: Load) -> None:
    """Query until every answered call is a row."""
    give_up = time.monotonic() + PATIENCE
    wanted = {each.call.trace for each in load.succeeded}
    while time.monotonic() < give_up and not wanted <= watched.seen.keys():
        for last in range(BEFORE, await bus.newest(EVENTS) + AT_ONCE, AT_ONCE):
            await _look(bus, watched, last)
        await asyncio.sleep(LOOK)


async def _look(bus: Bus, watched: Watched, last: int) -> int:
    """Read the rows after message `last` and return the newest message."""
    sql = _NEW.format(last=max(0, last - BEFORE), most=BEFORE + AT_ONCE)
    query = AuditQuery(sql=sql, limit=BEFORE + AT_ONCE)
    with suppress(ToolbusError):
        found = await RequestReply("operator", bus).request(query, RowsReply, 5.0)
        now = time.monotonic()
        for trace, number in found.rows:
            watched.seen.setdefault(str(trace), now)
            last = max(last, int(number))
    return last


def _signed(path: Path) -> int | None:
    """Return when the newest checkpoint was signed."""
    with suppress(OSError, IndexError):
        at: int = msgspec.json.decode(path.read_bytes().splitlines()[-1])["at"]
        return at
    return None


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")
