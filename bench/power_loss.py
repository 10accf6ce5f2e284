"""Acknowledged events after a power failure of all NATS servers (`make bench-power-loss`).

One server and a cluster of three, with the durability `default` and `strict` of `toolbus
nats-config`. Events of the size of an intent are stored, 64 at a time, until the power of all
disks is cut at once. Every acknowledged event must be in the stream afterwards. The form `default`
of one server is the control: it must lose some, otherwise the run shows nothing. The cost is that
of one acknowledgement, measured in the same run on the same disks. Needs root.
"""

import argparse
import asyncio
import logging
import os
import random
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from cut_power import Disk
from figures import Row, console, keep, load, met, row, show
from harness.engines.nats_cluster import NAMES, ClusterNode, clustered
from harness.engines.nats_server import NatsServer
from harness.waits import until_async
from toolbus_cli.commands.operate.nats_cluster import Durability
from toolbus_common.contracts import ConfigApplied
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.provision import provision
from toolbus_common.nats.topology import EVENTS

INTENT_BYTES = 900
AT_ONCE = 64
IN_TURN = 300
COMPARED = 1000  # newest events whose contents are compared; of the older ones, the number counts
SECONDS = (0.5, 2.5)  # of load before a power failure


@dataclass
class Form:
    """A number of servers with one durability, and what was found."""

    servers: int
    durability: Durability
    failures: int = 0
    acknowledged: int = 0
    lost: int = 0
    leaderless: int = 0  # failures after which the stream had no leader for a minute; the last one
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    per_second: float = 0.0

    def __str__(self) -> str:
        return f"{self.servers} server{'s' * (self.servers > 1)}, {self.durability}"


class Servers:
    """The NATS servers of a form, each with a disk of its own."""

    def __init__(self, disks: list[Disk], nodes: list[NatsServer] | list[ClusterNode]) -> None:
        self._disks, self._nodes = disks, nodes

    @property
    def urls(self) -> str:
        """The URLs for clients."""
        return ",".join(each.url for each in self._nodes)

    def sync(self) -> None:
        """Write everything to the disks, as if nothing had happened for a while."""
        for each in self._disks:
            each.sync()

    def cut_power(self) -> None:
        """Cut the power of all disks, and start the servers again."""
        for disk in self._disks:
            disk.cut()
        for node in self._nodes:
            node.kill()
        for disk in self._disks:
            disk.restore()
        for node in self._nodes:
            node.start()


def main() -> int:
    """Run the benchmark; return 0 if no form loses an event that must not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--failures", type=int, default=10, help="power failures of each form")
    parser.add_argument("--servers", type=int, choices=(1, 3), nargs="+", default=(1, 3))
    options = parser.parse_args()
    if os.geteuid():
        raise SystemExit("File systems are mounted: run this command as root.")
    logging.disable()  # of the client, which loses its servers
    before, generator = load(), random.Random(7)
    forms = [Form(servers, each) for servers in options.servers for each in Durability]
    for form in forms:
        with tempfile.TemporaryDirectory(prefix="toolbus-power-") as name:
            _measure(form, Path(name), options.failures, generator)
        console.print(
            f"{form}: {form.lost} of {form.acknowledged} acknowledged events lost in "
            f"{form.failures} power failures; p50 {form.p50_ms:.2f} ms, p99 {form.p99_ms:.2f} ms, "
            f"{form.per_second:,.0f} events/s"
            + (", and no leader after the last" if form.leaderless else "")
        )
    rows = [_row(form) for form in forms]
    show(rows)
    header = {"asked": vars(options), "before": before, "after": load()}
    keep("power-loss", {**header, "forms": [asdict(each) for each in forms], "rows": rows})
    return 0 if met(rows) else 1


def _row(form: Form) -> Row:
    what = f"{form}: acknowledged events that were lost"
    if form.durability is Durability.STRICT:
        return row(what, form.lost + form.leaderless, "<=", 0)
    if form.servers == 1:
        return row(f"{what} (control)", form.lost, ">=", 1)
    return {"what": what, "value": form.lost, "demand": "", "met": True}


def _measure(form: Form, directory: Path, failures: int, generator: random.Random) -> None:
    seeds = directory / ("n1/nkeys" if form.servers == 1 else "nkeys")
    with _running(form, directory, seeds) as servers:
        seed = (seeds / f"{OPERATOR}.seed").read_text()
        asyncio.run(_begin(form, servers, seed))
        for _ in range(failures):
            servers.sync()
            kept = asyncio.run(_until_cut(servers, seed, generator))
            form.failures += 1
            form.acknowledged += len(kept)
            try:
                form.lost += asyncio.run(_lost(servers, seed, kept))
            except AssertionError:  # of the wait for a leader
                form.leaderless += 1
                return


@contextmanager
def _running(form: Form, directory: Path, seeds: Path) -> Iterator[Servers]:
    names = NAMES[: form.servers]
    with ExitStack() as stack:
        disks = [Disk(directory / f"{name}.img", directory / name) for name in names]
        for disk in disks:
            stack.enter_context(disk.mounted())
        strict = form.durability is Durability.STRICT
        if form.servers == 1:
            server = NatsServer(directory / names[0])
            server.sync("always" if strict else "1s")
            yield Servers(disks, [stack.enter_context(server.running())])
        else:
            nodes = stack.enter_context(clustered(directory, seeds, None, strict=strict))
            yield Servers(disks, nodes)


async def _begin(form: Form, servers: Servers, seed: str) -> None:
    """Create the streams, and measure acknowledgements in turn and at once."""
    async with _joined(servers, seed) as bus:
        await provision(bus, replicas=form.servers, default_events_bytes=256 << 20)
        taken = []
        for number in range(IN_TURN):
            began = perf_counter()
            await bus.store(_event(f"turn.{number}"))
            taken.append((perf_counter() - began) * 1000)
        form.p50_ms = statistics.median(taken)
        form.p99_ms = statistics.quantiles(taken, n=100)[98]
        began = perf_counter()
        for number in range(20):
            await asyncio.gather(
                *(bus.store(_event(f"{number}.{each}")) for each in range(AT_ONCE))
            )
        form.per_second = 20 * AT_ONCE / (perf_counter() - began)


async def _until_cut(servers: Servers, seed: str, generator: random.Random) -> dict[int, bytes]:
    """Store events until the power is cut, and return those that were acknowledged, by sequence."""
    kept: dict[int, bytes] = {}
    run = generator.randbytes(4).hex()

    async def work(bus: Bus, worker: int) -> None:
        stream, number = bus.client.jetstream(timeout=5), 0
        while True:
            number += 1
            event = _event(f"{run}.{worker}.{number}")
            done = await stream.publish(event.subject, event.payload, headers=event.headers)
            kept[done.seq] = event.payload

    async with _joined(servers, seed) as bus:
        workers = [asyncio.create_task(work(bus, each)) for each in range(AT_ONCE)]
        await asyncio.sleep(generator.uniform(*SECONDS))
        acknowledged = dict(kept)
        servers.cut_power()  # blocks the loop, so nothing is acknowledged meanwhile
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return acknowledged


async def _lost(servers: Servers, seed: str, kept: dict[int, bytes]) -> int:
    """Return how many of the events are not in the stream."""
    async with _joined(servers, seed) as bus:
        stream = bus.client.jetstream(timeout=10)

        async def is_stored(sequence: int) -> bool:
            with suppress(NotFoundError):
                return (await stream.get_msg(EVENTS, sequence)).data == kept[sequence]
            return False

        last = (await stream.stream_info(EVENTS)).state.last_seq
        there = sorted(each for each in kept if each <= last)
        stored = [await is_stored(each) for each in there[-COMPARED:]]
        return len(kept) - len(there) + stored.count(False)


@asynccontextmanager
async def _joined(servers: Servers, seed: str) -> AsyncIterator[Bus]:
    bus = Bus(OPERATOR, servers.urls, seed)
    await bus.open()

    async def is_ready() -> bool:
        """Return whether the servers have a leader, also of the stream if it exists."""
        stream = bus.client.jetstream(timeout=5)
        try:
            await stream.account_info()
            info = await stream.stream_info(EVENTS)
        except NotFoundError:  # it is not created yet
            return True
        except (NatsError, JetStreamError, TimeoutError, BusDownError):
            return False
        return info.cluster is None or bool(info.cluster.leader)

    try:
        await until_async(is_ready, "a leader of the stream")
        yield bus
    finally:
        # the client waits for a connection whose loss has cancelled that wait
        with suppress(NatsError, TimeoutError, asyncio.CancelledError):
            await bus.close()


def _event(message_id: str) -> Envelope:
    payload = message_id.encode().ljust(INTENT_BYTES, b".")
    return Envelope(subject_of(ConfigApplied.NAME, "default"), message_id, payload)


if __name__ == "__main__":
    sys.exit(main())
