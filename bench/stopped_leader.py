"""A NATS server that hangs (SIGSTOP) while it leads the stream of events, in a cluster of three.

`make bench-stopped-leader` prints, for a client of each server: when its connection was given up,
which ends the calls that wait for a reply, and when events were stored again. The arguments are the
interval of the client's pings in seconds, and how many of them may be unanswered.
"""

import asyncio
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from harness.engines.nats_cluster import ClusterNode, clustered
from toolbus_common.contracts import ConfigApplied
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.errors import ToolbusError
from toolbus_common.nats import connection
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.provision import provision
from toolbus_common.nats.topology import EVENTS

SUBJECT = subject_of(ConfigApplied.NAME, "c")
PAUSE = 0.05
SECONDS = 30.0
ENOUGH = 20  # stored events in a row after which the client has recovered
ids = count(1)


@dataclass
class Client:
    """A client of one server first, and what it noticed after `stopped`."""

    name: str
    bus: Bus
    stopped: float = 0.0
    lost: float = 0.0
    refused: int = 0
    last_refused: float = 0.0
    longest: float = 0.0
    row: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def load(self) -> None:
        """Store events until the client has recovered."""
        while not (self.stopped and self.row >= ENOUGH):
            task = asyncio.create_task(self._store())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            await asyncio.sleep(PAUSE)
        await asyncio.gather(*self.tasks)

    async def _store(self) -> None:
        began = monotonic()
        try:
            await self.bus.store(Envelope(SUBJECT, f"m{next(ids)}", b"{}"))
        except ToolbusError:
            self.refused, self.row, self.last_refused = self.refused + 1, 0, monotonic()
        else:
            self.row += began > self.stopped > 0
        self.longest = max(self.longest, monotonic() - began)

    def shown(self, *, is_connected_to_it: bool) -> str:
        """Return the line of this client."""
        lost = f"{self.lost - self.stopped:.1f} s" if self.lost else "never"
        until = max(0.0, self.last_refused - self.stopped)
        place = "the stopped server" if is_connected_to_it else "another server"
        return (
            f"client of {place}: connection given up {lost}; {self.refused} events refused, the "
            f"last after {until:.1f} s; longest wait {self.longest:.1f} s"
        )


async def _measure(nodes: list[ClusterNode], seeds: Path) -> None:
    seed = (seeds / f"{OPERATOR}.seed").read_text()
    clients = []
    for node in nodes:
        urls = [node.url, *(each.url for each in nodes if each is not node)]
        clients.append(Client(node.url, Bus(OPERATOR, ",".join(urls), seed)))
    for each in clients:
        await each.bus.open()
    await _provisioned(clients[0].bus)
    info = await clients[0].bus.client.jetstream(timeout=10).stream_info(EVENTS)
    assert info.cluster is not None
    leader = next(node for node in nodes if node.directory.name == info.cluster.leader)
    loads = [asyncio.create_task(each.load()) for each in clients]
    await asyncio.sleep(2.0)
    for each in clients:
        each.refused, each.longest = 0, 0.0
        each.bus.on_lost.append(lambda each=each: setattr(each, "lost", monotonic()))  # type: ignore[misc]
    on_it = [each for each in clients if _port_of(each.bus) == leader.port]
    leader.freeze()
    for each in clients:
        each.stopped = monotonic()
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*loads)
    print(f"pings every {connection.PING_SECONDS} s, {connection.PINGS} of them unanswered")
    for each in clients:
        print(each.shown(is_connected_to_it=each in on_it))
    leader.thaw()
    for each in clients:
        await each.bus.close()


def _port_of(bus: Bus) -> int | None:
    """Return the port of the server that the client is connected to."""
    url = bus.client.connected_url
    return url.port if url is not None else None


async def _provisioned(bus: Bus) -> None:
    """Create the streams as soon as the cluster has a leader."""
    while True:
        try:
            await bus.client.jetstream(timeout=5).account_info()
            await provision(bus, replicas=3, default_events_bytes=1 << 30)
        except (NatsError, JetStreamError, TimeoutError):
            await asyncio.sleep(0.5)
        else:
            return


def main() -> None:
    """Run three servers, and stop the one that leads the stream."""
    if sys.argv[1:]:
        connection.PING_SECONDS, connection.PINGS = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with clustered(directory, directory / "nkeys", None) as nodes:
            asyncio.run(_measure(nodes, directory / "nkeys"))


if __name__ == "__main__":
    main()
