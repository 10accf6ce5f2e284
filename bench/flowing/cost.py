"""Cost of recording for a call: three gateways on one machine, called in turn.

One records nothing, one waits for the intent as usual, and one uses a NATS server that syncs every
message to disk (`sync_interval: always`).
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from figures import Row, row
from harness.clients.bus_operator import key
from harness.clients.steady_load import Call, Load
from harness.gateway.cluster import Cluster, Upstream
from toolbus_common.config import Configuration, Server

SECRET = "tbk_bot_a-secret-of-the-bench"
MAX_MS = 2.0
WARM = 50  # calls of each gateway before the measurement
LABELS = {
    "nothing": "nothing recorded",
    "default": "as it is",
    "always": "sync_interval: always",
}
# what is recorded, and when it is synced
VARIANTS = {"nothing": "1s", "default": "1s", "always": "always"}


def cost(calls: int) -> Iterator[Row]:
    """Return what the default adds, which has a demand, and what `always` adds, which has none."""
    with tempfile.TemporaryDirectory(prefix="toolbus-cost-") as name, ExitStack() as stack:
        upstream = Upstream(Path(name) / "upstream")
        upstream.start()
        stack.callback(upstream.kill)
        clusters = {
            variant: stack.enter_context(_gateway(Path(name) / variant, variant, upstream))
            for variant in VARIANTS
        }
        taken = asyncio.run(_called(clusters, calls))
    p50 = {variant: statistics.median(each) for variant, each in taken.items()}
    p99 = {variant: statistics.quantiles(each, n=100)[98] for variant, each in taken.items()}
    fields = {"p50_ms": p50, "p99_ms": p99, "calls": calls}
    adds = {variant: p50[variant] - p50["nothing"] for variant in VARIANTS}
    yield row("recording a call: ms it adds, p50", adds["default"], "<=", MAX_MS, **fields)
    yield _undemanded("the same, sync_interval: always", adds["always"])
    for variant in VARIANTS:
        yield _undemanded(f"a call, {LABELS[variant]}: ms, p50", p50[variant])


def _undemanded(what: str, value: float) -> Row:
    """Return a figure without a demand."""
    return {"what": what, "value": value, "demand": "", "met": True}


@contextmanager
def _gateway(directory: Path, variant: str, upstream: Upstream) -> Iterator[Cluster]:
    cluster = Cluster(directory)
    cluster.nats.sync(VARIANTS[variant])
    cluster.program = "unrecorded_services.py" if variant == "nothing" else "plain_services.py"
    try:
        servers = {"echo": Server(url=upstream.url)}
        cluster.start(Configuration(servers=servers, keys={"bot": key(SECRET)}), fused=True)
        cluster.until_listed(cluster.client(SECRET), "echo__count")
        yield cluster
    finally:
        cluster.stop()


async def _called(clusters: dict[str, Cluster], calls: int) -> dict[str, list[float]]:
    """Return milliseconds per call, one gateway after the other, one call at a time."""
    taken: dict[str, list[float]] = {variant: [] for variant in clusters}
    loads = {variant: _load(cluster) for variant, cluster in clusters.items()}
    for number in range(WARM + calls):
        for variant, load in loads.items():
            call = Call(f"{variant}.{number}", "count", f"{number + 1:032x}")
            began = time.perf_counter()
            result = await load.answer_of(call)
            took = (time.perf_counter() - began) * 1000
            if call.answer not in json.dumps(result):
                raise SystemExit(f"{variant}: wrong answer: {result}")
            if number >= WARM:
                taken[variant].append(took)
    for load in loads.values():
        await load.close()
    return taken


def _load(cluster: Cluster) -> Load:
    return Load(lambda: cluster.client(SECRET).endpoint, SECRET, SECRET, 1.0)
