"""Cost of asking a Python plugin that does nothing, compared with one hop over the bus.

The hop is a request of policy to a bare program of the NATS client, through the same accounts. The
plugin is asked like by policy: request, time box, verdict, check. Both programs are processes of
their own, asked in turn.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, time

import msgspec
from rich.table import Table

from figures import console, keep
from harness.engines.nats_server import NatsAt, NatsServer
from toolbus_common.config.plugins import Plugin
from toolbus_common.contracts import CheckedCall
from toolbus_common.nats.accounts import plugin_account
from toolbus_common.nats.connection import Bus
from toolbus_common.plugins.checks import PluginChecks
from toolbus_common.plugins.requests import PluginRequests
from toolbus_common.plugins.subjects import subject_of

DEMAND = 1.5
ROUNDS, REQUESTS = 41, 100
POINT = "before_decision"
HOP = "second"  # the plugin whose program only sends back what it received
_ECHO = """
import asyncio, sys
import nats
async def main():
    client = await nats.connect(sys.argv[1], nkeys_seed_str=sys.argv[2])
    async def echo(message):
        await message.respond(message.data)
    await client.subscribe(sys.argv[3], cb=echo)
    await client.flush()
    await asyncio.Event().wait()
asyncio.run(main())
"""
_NOTHING = """
from toolbus_common.plugins.python.api import hook
@hook
def before_decision():
    return None
"""
_RUN = """
import asyncio, sys
from nats.aio.client import Client
from toolbus_common.plugins.python.process import Plugin, Settings, serve
settings = Settings("probe", "nothing", [sys.argv[3]], seed=sys.argv[2])
sys.path.insert(0, "")
asyncio.run(serve(settings, Plugin(settings), Client(), servers=sys.argv[1]))
"""


def main() -> int:
    """Measure; return 1 if the demand is not met."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "nothing.py").write_text(_NOTHING)
        with NatsServer(place / "nats").running() as server:
            hop, answered = asyncio.run(_measured(server.at, place))
    ratio = answered / hop
    table = Table("", "µs")
    table.add_row("one hop over the bus", f"{hop:.0f}")
    table.add_row("a Python plugin that does nothing", f"{answered:.0f}")
    console.print(table)
    console.print(f"ratio {ratio:.2f} (at most {DEMAND})")
    figures = {"hop_us": round(hop, 1), "plugin_us": round(answered, 1), "ratio": round(ratio, 3)}
    keep("plugins", {**figures, "met": ratio <= DEMAND})
    return 0 if ratio <= DEMAND else 1


async def _measured(server: NatsAt, place: Path) -> tuple[float, float]:
    """Return the medians of both, in microseconds."""
    plugin = Plugin(hooks=(POINT,), sees=("arguments",), timeout=5.0)
    declared = {"probe": plugin}
    bus = Bus("policy", server.url, server.seed("policy"))
    await bus.open()
    checks = PluginChecks(PluginRequests(bus, lambda: declared))
    content = {"arguments": {"page": 7, "note": "hello"}}
    call = CheckedCall(
        call_id="c-1", customer="acme", key="k", server="docs", tool="burn", deadline=time() + 600
    )
    payload = msgspec.json.encode({"call": call.__dict__, "content": content})

    async def hop() -> None:
        await bus.request(subject_of(POINT, HOP), payload, 5.0)

    async def ask() -> None:
        found = await checks.check("plugin:probe", POINT, call, 40, lambda: content)
        assert found.check.verdict == "passed", found.check

    with _program(_ECHO, server, HOP, place), _program(_RUN, server, "probe", place):
        await _until(hop)
        await _until(ask)
        hops, asks = [], []
        for _ in range(ROUNDS):
            hops.append(await _round(hop))
            asks.append(await _round(ask))
    await bus.close()
    return median(hops), median(asks)


async def _round(work: Callable[[], Awaitable[None]]) -> float:
    began = perf_counter()
    for _ in range(REQUESTS):
        await work()
    return (perf_counter() - began) / REQUESTS * 1e6


async def _until(work: Callable[[], Awaitable[None]]) -> None:
    """Repeat until the program answers."""
    for _ in range(300):
        try:
            return await work()
        except (LookupError, AssertionError):
            await asyncio.sleep(0.1)
    raise RuntimeError("a program did not begin")


@contextmanager
def _program(source: str, server: NatsAt, name: str, place: Path) -> Iterator[None]:
    seed = server.seed(plugin_account(name)) or ""
    subject = subject_of(POINT, name)
    command = [sys.executable, "-c", source, server.url, seed, subject]
    with subprocess.Popen(command, cwd=place, env={**os.environ}) as process:
        try:
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
