"""Effect of one faulty upstream of ten, and of threefold overload (`make bench-resilience`).

A whole gateway with its call path in one process. The baseline of each fault is measured at the
same time, at a second gateway over ten healthy upstreams with the same callers, so that other load
affects both. The machine's load is stored with the figures; on a busy machine the ratios of
latencies are unreliable.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from figures import keep, load, met, row, show
from harness.clients.bus_operator import key
from harness.engines.engine import die_with_parent, own_port
from harness.gateway.cluster import Cluster
from harness.upstreams.faulty_server import TROUBLES
from toolbus_common.config import Configuration, Server, ToolView
from toolbus_common.config.servers.endpoints import Replica

HERE = Path(__file__).parent
SECRET = "tbk_root_a-secret-of-the-bench"
UPSTREAMS = 10
TIMEOUT = 2.0  # seconds a call may take
ROUNDS = 5  # of each fault, pooled
REPLICAS, SETTLING = 3, 2.0
PACE = 0.2  # seconds between two calls of a caller, so that the machine itself is not the limit
BAD_CALLERS = 8
WORKERS, WORK_SECONDS = 8, 0.1  # of the overloaded upstream: 80 calls per second
CALLERS_AT_PEAK = 16
MAX_RATIO, MAX_ATTEMPTS, MIN_GOODPUT, MAX_REFUSAL_MS = 1.10, 1.2, 0.9, 50.0


@dataclass
class Seen:
    """Calls of one phase: milliseconds of answered and denied ones, and codes of failures."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)

    def take(self, took: float, code: str) -> None:
        """Add one call's result."""
        if not code:
            self.answered.append(took * 1000)
            return
        self.codes[code] += 1
        if code == "overloaded":
            self.refused.append(took * 1000)

    def add(self, other: "Seen") -> None:
        """Add another phase's results."""
        self.answered += other.answered
        self.refused += other.refused
        self.codes += other.codes


class Caller:
    """One agent on one connection."""

    def __init__(self, endpoint: str, server: str, tool: str = "plain") -> None:
        parts = urlsplit(endpoint)
        self._address = parts.hostname or "", parts.port or 80
        params = {"name": f"{server}__{tool}", "arguments": {}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        self._request = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {SECRET}\r\nContent-Type: application/json\r\n"
            "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-06-18\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self) -> tuple[float, str]:
        """Make one call; return its seconds and its error code, if any."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        began = monotonic()
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        body = await _body(head, reader)
        took = monotonic() - began
        parsed = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])
        return took, parsed["error"]["data"]["code"] if "error" in parsed else ""

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()


async def _body(head: str, reader: asyncio.StreamReader) -> bytes:
    """Read a body by its length, or in chunks."""
    if "content-length:" in head:
        length = head.partition("content-length:")[2].partition("\r\n")[0]
        return await reader.readexactly(int(length))
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).strip() or b"0", 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return body


def main() -> int:
    """Run the benchmark; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="seconds of every phase and round"
    )
    options = parser.parse_args()
    before = load()
    rows = [
        *isolation(options.seconds),
        *replicas(options.seconds),
        *overload(options.seconds),
    ]
    show(rows)
    header = {"asked": vars(options), "before": before, "after": load()}
    keep("resilience", {**header, "rows": rows})
    return 0 if met(rows) else 1


# -- one of ten ------------------------------------------------------------------------------


def isolation(seconds: float) -> Iterator[dict[str, Any]]:
    """Return the other nine's p99 beside the baseline for each fault, and attempts per call.

    A fault's p99 comes from some twenty calls, and random delays of the machine are longer than
    those; the median over all rounds of all faults is the stable figure.
    """
    like = Server(url="http://x", timeout=TIMEOUT)
    with _gateway(UPSTREAMS, like) as (endpoint, ports), _gateway(UPSTREAMS, like) as (well, _):
        pairs: list[tuple[float, float]] = []
        for trouble in TROUBLES[1:]:
            rows = asyncio.run(_one_bad(endpoint, well, ports[0], trouble, seconds))
            pairs += rows[0]["baseline_and_others_ms"]
            yield from rows
    ratio = statistics.median(others / baseline for baseline, others in pairs)
    yield row("all faults: median ratio of their rounds", ratio, "<=", MAX_RATIO)


async def _one_bad(
    endpoint: str, well: str, port: int, trouble: str, seconds: float
) -> list[dict[str, Any]]:
    before = await _set_trouble(port, trouble)
    baseline, others, bad, pairs = Seen(), Seen(), Seen(), []
    for _ in range(ROUNDS):
        (well_off, _), (beside, worse) = await asyncio.gather(
            _phase(well, seconds), _phase(endpoint, seconds)
        )
        pairs.append((_p99(well_off.answered), _p99(beside.answered)))
        for whole, part in ((baseline, well_off), (others, beside), (bad, worse)):
            whole.add(part)
    attempts = await _set_trouble(port, "") - before
    calls = len(bad.answered) + bad.codes.total()
    await _until_well(endpoint)
    fields = {"trouble": trouble, "bad": dict(bad.codes), "calls": calls, "attempts": attempts}
    fields["baseline_and_others_ms"] = pairs
    ratio = _p99(others.answered) / _p99(baseline.answered)
    return [
        row(f"{trouble}: p99 of the others ÷ baseline", ratio, "<=", MAX_RATIO, **fields),
        row(f"{trouble}: failures of the others", others.codes.total(), "<=", 0, **fields),
        row(f"{trouble}: attempts ÷ calls", attempts / calls, "<=", MAX_ATTEMPTS, **fields),
    ]


async def _phase(endpoint: str, seconds: float) -> tuple[Seen, Seen]:
    """Return what the callers of nine servers and of the tenth observe."""
    others, bad, until = Seen(), Seen(), monotonic() + seconds
    callers = [Caller(endpoint, f"u{number}") for number in range(1, UPSTREAMS)]
    worse = [Caller(endpoint, "u0", "twice") for _ in range(BAD_CALLERS)]
    loops = [_paced(caller, others, until) for caller in callers]
    await asyncio.gather(*loops, *(_paced(caller, bad, until) for caller in worse))
    return others, bad


async def _paced(caller: Caller, seen: Seen, until: float) -> None:
    await asyncio.sleep(random.uniform(0, PACE))  # otherwise they would wait for each other
    while monotonic() < until:
        took, code = await caller.call()
        seen.take(took, code)
        await asyncio.sleep(max(0.0, PACE - took))
    caller.close()


async def _until_well(endpoint: str) -> None:
    """Wait until the circuit breaker has closed, so that every fault starts from the same state."""
    caller = Caller(endpoint, "u0")
    while (await caller.call())[1]:  # noqa: ASYNC110 - it asks another process
        await asyncio.sleep(0.5)
    caller.close()


# -- one of three replicas -------------------------------------------------------------------


def replicas(seconds: float) -> list[dict[str, Any]]:
    """Return failed calls to a server of three replicas after the hanging one is ejected."""
    declared = Server(url="http://x", timeout=TIMEOUT)
    with _gateway(REPLICAS, declared, replicated=True) as (endpoint, ports):
        return asyncio.run(_one_hung(endpoint, ports, seconds))


async def _one_hung(endpoint: str, ports: list[int], seconds: float) -> list[dict[str, Any]]:
    await _set_trouble(ports[0], "hung?wholly")
    # the calls that reach the hanging replica, and their end
    before = await _crowd(endpoint, TIMEOUT + SETTLING)
    after = await _crowd(endpoint, seconds)
    request = [await _set_trouble(port, "") for port in ports]
    fields: dict[str, Any] = {"calls": len(after.answered) + after.codes.total(), "asked": request}
    fields |= {"before": dict(before.codes), "codes": dict(after.codes)}
    what = "one of three replicas hung: calls that fail after its ejection"
    return [row(what, after.codes.total(), "<=", 0, **fields)]


async def _crowd(endpoint: str, seconds: float) -> Seen:
    """Return what several callers of the first server observe."""
    seen, until = Seen(), monotonic() + seconds
    callers = [Caller(endpoint, "u0") for _ in range(BAD_CALLERS)]
    await asyncio.gather(*(_paced(caller, seen, until) for caller in callers))
    return seen


# -- overload --------------------------------------------------------------------------------


def overload(seconds: float) -> list[dict[str, Any]]:
    """Measure goodput at three times a server's capacity, and the delay until a denial."""
    declared = Server(url="http://x", concurrency=CALLERS_AT_PEAK)
    work = ("--seconds", str(WORK_SECONDS), "--workers", str(WORKERS))
    with _gateway(1, declared, *work) as (endpoint, _):
        return asyncio.run(_overloaded(endpoint, seconds))


async def _overloaded(endpoint: str, seconds: float) -> list[dict[str, Any]]:
    peak, until = Seen(), monotonic() + seconds
    callers = [Caller(endpoint, "u0") for _ in range(CALLERS_AT_PEAK)]
    began = monotonic()
    await asyncio.gather(*(_greedy(caller, peak, until) for caller in callers))
    best = len(peak.answered) / (monotonic() - began)
    crowd = Seen()
    good = await _offered(endpoint, crowd, 3 * best, seconds)
    fields: dict[str, Any] = {"peak": best, "goodput": good, "answered": len(crowd.answered)}
    fields |= {"codes": dict(crowd.codes), "offered": 3 * best}
    refusal = _p99(crowd.refused)
    return [
        row("3x overload: goodput ÷ peak", good / best, ">=", MIN_GOODPUT, **fields),
        row("3x overload: p99 of a denial, ms", refusal, "<=", MAX_REFUSAL_MS, **fields),
    ]


async def _greedy(caller: Caller, seen: Seen, until: float) -> None:
    while monotonic() < until:
        seen.take(*await caller.call())
    caller.close()


async def _offered(endpoint: str, seen: Seen, rate: float, seconds: float) -> float:
    """Send calls at a fixed rate without waiting for answers; return answers per second."""
    idle: list[Caller] = []
    tasks: set[asyncio.Task[None]] = set()

    async def one() -> None:
        caller = idle.pop() if idle else Caller(endpoint, "u0")
        seen.take(*await caller.call())
        idle.append(caller)

    began = monotonic()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - monotonic()))
        tasks.add(asyncio.create_task(one()))
    good = len(seen.answered) / (monotonic() - began)
    await asyncio.gather(*tasks)
    for caller in idle:
        caller.close()
    return good


# -- gateway ---------------------------------------------------------------------------------


@contextmanager
def _gateway(
    count: int, like: Server, *options: str, replicated: bool = False
) -> Iterator[tuple[str, list[int]]]:
    """Start a gateway over upstreams u0, u1, …, or one of replicas; yield it and their ports."""
    ports = [own_port() for _ in range(count)]
    program = [sys.executable, "-m", "harness.upstreams.faulty_server", *map(str, ports), *options]
    upstreams = subprocess.Popen(program, preexec_fn=die_with_parent)  # noqa: PLW1509
    like = like.model_copy(update={"tools": {"twice": ToolView(idempotent=True)}})
    urls = [f"http://127.0.0.1:{port}/mcp" for port in ports]
    alike = {"url": "", "replicas": tuple(Replica(url=url) for url in urls)}
    each: list[dict[str, Any]] = [alike] if replicated else [{"url": url} for url in urls]
    servers = {f"u{number}": like.model_copy(update=at) for number, at in enumerate(each)}
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(Path(directory))
        try:
            declared = {name: server.model_dump() for name, server in servers.items()}
            cluster.start(Configuration(servers=declared, keys={"root": key(SECRET)}), fused=True)
            client = cluster.client(SECRET)
            for name in servers:
                cluster.until_listed(client, f"{name}__plain")
            yield client.endpoint, ports
        finally:
            cluster.stop()
            upstreams.terminate()
            upstreams.wait()


async def _set_trouble(port: int, trouble: str) -> int:
    """Set an upstream's fault; return the number of calls that had reached it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /trouble/{trouble} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    found = int(await _body(head, reader))
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return found


def _p99(found: list[float]) -> float:
    ordered = sorted(found)
    return ordered[int(len(ordered) * 0.99)] if ordered else float("nan")


if __name__ == "__main__":
    sys.exit(main())
