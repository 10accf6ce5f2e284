"""The exact memory that services keep of each call, and the check that finds a leak of 1 KB.

`make soak` measures the same over hours.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from harness.clients.bus_operator import key
from harness.clients.steady_load import Call, Load
from harness.gateway.cluster import Cluster, Upstream
from harness.gateway.process_reports import PROGRAM, full_report_of
from toolbus_common.config import Budget, Configuration, Period, Server

SECRET = "tbk_bot_a-secret-of-the-memory-test"
CALLS = 300
ROUNDS = 3  # what is kept once is no leak; a leak grows in every round
AT_ONCE = 8
MAX_BYTES = 256  # kept of a call
CONFIGURATION = Configuration(
    keys={"bot": key(SECRET, budget=Budget(usd=1000, per=Period.MONTH))},
    prices={"echo__*": 0.001},
)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Run the call path in one process, and audit in another."""
    made = Cluster(tmp_path, MEASURED_DIR=str(tmp_path), MEASURED_TRACE="1")
    made.program = PROGRAM
    with Upstream(tmp_path / "upstream").running() as upstream:
        servers = {"echo": Server(url=upstream.url)}
        declared = CONFIGURATION.model_copy(update={"servers": servers})
        with made.running(declared, fused=True):
            made.until_listed(made.client(SECRET), "echo__count")
            yield made


def test_services_keep_nothing_of_a_call_and_a_leak_of_a_kilobyte_is_found(
    cluster: Cluster, tmp_path: Path
) -> None:
    processes = [process.pid for (process,) in cluster.processes.values()]
    load = Load(lambda: cluster.client(SECRET).endpoint, SECRET, SECRET, 1.0)
    rounds = count(1)

    def memory() -> list[int]:
        return [full_report_of(pid, tmp_path).traced for pid in processes]

    with asyncio.Runner() as runner:  # the connections stay open, because they take memory too

        def grows() -> bool:
            """Return whether a process has more memory after a round of calls than before."""
            number, before = next(rounds), memory()
            runner.run(make_calls(load, number))
            until_stored(cluster, number * CALLS)
            pairs = zip(before, memory(), strict=True)
            return any(after - first > CALLS * MAX_BYTES for first, after in pairs)

        grows()  # the first round loads modules and fills caches
        assert not all(grows() for _ in range(ROUNDS)), "each round keeps memory"
        for pid in processes:
            os.kill(pid, signal.SIGUSR2)  # from now on, 1 KB of each event is kept
        assert all(grows() for _ in range(ROUNDS))
        runner.run(load.close())


def until_stored(cluster: Cluster, calls: int) -> None:
    """Wait until audit has written the outcomes of that many calls."""
    cluster.eventual_rows(
        "SELECT count() AS stored FROM events WHERE event = 'call.completed'",
        lambda rows: rows[0]["stored"] >= calls,
    )


async def make_calls(load: Load, number: int) -> None:
    """Make calls, some at once, and check every response."""
    calls = iter(Call(f"{number}.{n}", "count", f"{n + 1:032x}") for n in range(CALLS))

    async def work() -> None:
        for call in calls:
            result = await load.answer_of(call)
            assert result["result"]["content"][0]["text"] == call.answer

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
