"""Cost of idle stdio servers, and leftovers of killed ones (`make bench-isolation`).

A whole gateway with its executor as its own process. Every server starts a stray process that
leaves the server's group and session, ignores signals and holds every pipe open. The machine's load
is stored with the figures.
"""

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from figures import Row, keep, load, met, row, show
from harness.clients.bus_operator import key
from harness.clients.mcp_client import Client
from harness.gateway.cluster import Cluster
from harness.programs.marked_processes import command_of, marked
from harness.waits import until_blocking
from toolbus_common.config import Configuration, Server
from toolbus_common.process.tethered import tethered
from toolbus_executor.isolation.plan import Isolation

HERE = Path(__file__).parent
SECRET = "tbk_root_a-secret-of-the-bench"
DECLARED, USED = 100, 5
KILLED = 4  # servers that are killed in turn
PACE = 0.05
MAX_RECOVERY, MAX_ADDED_MS = 2.0, 25.0
STARTS = 60
PAGE = os.sysconf("SC_PAGE_SIZE")
MARK = f"bench-{uuid.uuid4().hex}"


def main() -> int:
    """Run the benchmark; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument(
        "--restarts", type=int, default=5, help="restarts of the executor after kill -9"
    )
    options = parser.parse_args()
    before = load()
    rows = [starting(), *fleet(options.restarts), *killing(options.kills)]
    show(rows)
    header = {"asked": vars(options), "before": before, "after": load()}
    keep("isolation", {**header, "rows": rows})
    return 0 if met(rows) else 1


def starting() -> Row:
    """Return what isolation adds to the start of a process that has a parent-death signal."""
    took: dict[str, list[float]] = {"isolated": [], "tethered": []}
    for _ in range(STARTS):
        for name, command in (
            ("isolated", Isolation().around(["true"])),
            ("tethered", tethered(["true"])),
        ):
            began = time.perf_counter()
            subprocess.run(command, stderr=subprocess.DEVNULL, check=True)
            took[name].append(1000 * (time.perf_counter() - began))
    p50 = {f"{name}_ms": statistics.median(each) for name, each in took.items()}
    added = p50["isolated_ms"] - p50["tethered_ms"]
    return row("process start: ms added by isolation, p50", added, "<=", MAX_ADDED_MS, **p50)


# -- idle servers ----------------------------------------------------------------------------


def fleet(restarts: int) -> Iterator[Row]:
    """Measure a hundred declared servers with five in use, and executors that come and go."""
    names = [f"u{number}" for number in range(DECLARED)]
    with _gateway(names, idle=600) as cluster, _callers(cluster, names[:USED]):
        used = {f"{MARK}-{name}" for name in names[:USED]}
        client = cluster.client(SECRET)
        for name in names[:USED]:
            until_blocking(partial(_called, client, name), "an answer", 60)
        until_blocking(lambda: _idle_processes(used) == [], "the end of what is not used", 300)
        idle, busy = _idle_processes(used), marked(MARK)
        more = {"processes_of_used": len(busy), "rss_of_used_mb": sum(map(_rss, busy)) / 2**20}
        alive = {mark for pid in busy for mark in _marks(pid)}
        yield row("idle servers: MB of RSS", sum(map(_rss, idle)) / 2**20, "<=", 0, **more)
        yield row("running servers that are not used", len(alive - used), "<=", 0)
        yield row("used servers that are not running", len(used - alive), "<=", 0)
        left, started = 0, 0
        for _ in range(restarts):
            before = _alive_with_start(marked(MARK))
            cluster.processes["executor"].pop().kill()
            cluster.run("executor").wait_ready()
            client = cluster.client(SECRET)
            for name in names[:USED]:
                until_blocking(partial(_called, client, name), "an answer", 60)
            left += len(_still(before))
            started += len({mark for pid in marked(MARK) for mark in _marks(pid)} - used)
        yield row("executor killed: leftover processes", left, "<=", 0, restarts=restarts)
        yield row("executor restarted: idle servers started", started, "<=", 0, restarts=restarts)


def _idle_processes(used: set[str]) -> list[int]:
    return [pid for pid in marked(MARK) if not _marks(pid) & used]


def _marks(pid: int) -> set[str]:
    return {word.decode() for word in command_of(pid) if word.startswith(MARK.encode())}


def _rss(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    return 0


# -- killed servers --------------------------------------------------------------------------


def killing(kills: int) -> Iterator[Row]:
    """Kill servers under load one after the other and return their leftover processes."""
    names = [f"k{number}" for number in range(KILLED)]
    orphans, zombies, recoveries = 0, 0, list[float]()
    with _gateway(names, idle=600) as cluster, _callers(cluster, names * 2):
        client = cluster.client(SECRET)
        for number in range(kills):
            name = names[number % KILLED]
            before = _alive_with_start(marked(f"{MARK}-{name}"))
            os.kill(random.choice(_vital(before)), signal.SIGKILL)
            began = time.monotonic()
            until_blocking(partial(_called, client, name), "an answer", 60)
            recoveries.append(time.monotonic() - began)
            orphans += _left(before, began)
            zombies += len(_zombies(cluster.processes["executor"][0].pid))
    more = {"kills": kills, "p50_s": statistics.median(recoveries)}
    yield row("killed servers: orphans", orphans, "<=", 0, **more)
    yield row("killed servers: zombies", zombies, "<=", 0, **more)
    yield row("killed servers: longest recovery, s", max(recoveries), "<=", MAX_RECOVERY, **more)


def _vital(pids: Iterable[int]) -> list[int]:
    """Return the server process and its supervisors, without the processes it left behind."""
    return [pid for pid in pids if not command_of(pid)[0].startswith(MARK.encode())]


def _left(before: dict[int, str], began: float) -> int:
    """Return the number of leftover processes when the recovery time is over."""
    while (left := len(_still(before))) and time.monotonic() - began < MAX_RECOVERY:
        time.sleep(0.005)
    return left


def _alive_with_start(pids: list[int]) -> dict[int, str]:
    """Return processes with their start times, because process ids are reused."""
    return {pid: fields[19] for pid in pids if (fields := _stat(pid))}


def _still(before: dict[int, str]) -> list[int]:
    return [pid for pid, began in before.items() if (_stat(pid) or [""] * 20)[19] == began]


def _zombies(parent: int) -> list[int]:
    every = (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit())
    stats = {pid: _stat(pid) for pid in every}
    return [pid for pid, item in stats.items() if item and item[:2] == ["Z", str(parent)]]


def _stat(pid: int) -> list[str]:
    """Return the fields after the name: state, parent, …; the twentieth is the start time."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


# -- gateway and callers ---------------------------------------------------------------------


@contextmanager
def _gateway(names: list[str], idle: float) -> Iterator[Cluster]:
    """Run a gateway over servers of these names."""
    program = (sys.executable, str(HERE / "stdio_server.py"))
    servers = {
        name: Server(command=(*program, f"{MARK}-{name}"), idle=idle, timeout=5) for name in names
    }
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(Path(directory))
        try:
            declared = {name: server.model_dump() for name, server in servers.items()}
            cluster.start(Configuration(servers=declared, keys={"root": key(SECRET)}))
            client = cluster.client(SECRET)
            for name in names:
                cluster.until_listed(client, f"{name}__plain")
            yield cluster
        finally:
            cluster.stop()


@contextmanager
def _callers(cluster: Cluster, names: list[str]) -> Iterator[None]:
    """Call each of these servers continuously for the length of the block."""
    ended = threading.Event()
    client = cluster.client(SECRET)

    def call(name: str) -> None:
        while not ended.wait(PACE):
            _called(client, name)

    threads = [threading.Thread(target=call, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _called(client: Client, name: str) -> bool:
    """Return whether a call of a server is answered."""
    params = {"name": f"{name}__plain", "arguments": {}}
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    with suppress(OSError, KeyError, ValueError):
        return client.post(request, mcp_protocol_version="2025-06-18").text == "here"
    return False


if __name__ == "__main__":
    sys.exit(main())
