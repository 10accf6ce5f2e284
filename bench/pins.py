"""Ten thousand changed definitions, none of which may be listed or called (`make bench-pins`).

Definitions of real servers are pinned through a real gateway of separate processes. Then their
server changes all of them at once, repeatedly; after each change everything is listed and every
changed name is called over HTTP. The server counts the calls that reach it.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.progress import track

from conformance.upstream import FixtureServer
from figures import console, keep
from fixture_server.methods import TOOLS
from harness.clients.bus_operator import key
from harness.clients.mcp_client import Client
from harness.engines.engine import installed
from harness.gateway.cluster import Cluster
from harness.gateway.family_gateway import stateless
from harness.samples.definition_mutants import mutant
from harness.waits import until_blocking
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import Listing, Pin
from toolbus_common.contracts.records.pin_names import pin_key
from toolbus_common.crypto.canonical_json import digest_of
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import CATALOGUE, PINS
from toolbus_executor.upstreams.base import UpstreamCallbacks
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream

KEY = "tbk_root_a-secret-of-the-bench"
KEPT = ("greet", "test_echo")  # never changed: these stay listed and callable throughout
TRIGGER = "test_trigger_tool_change"  # a call that makes the server announce a changed list
APPROVED = 20
# a tool that is new in every round: once it is quarantined, the round has arrived
MARK = "bench_round"


class Place:
    """A gateway over one server whose definitions the benchmark changes."""

    def __init__(self, directory: Path) -> None:
        self._definitions = directory / "definitions.json"
        self.fixture = FixtureServer(directory / "fixture", "--definitions", str(self._definitions))
        self.cluster = Cluster(directory / "cluster")

    def start(self, definitions: list[Any]) -> None:
        """Start everything and pin these definitions with the first listing."""
        self._write({each["name"]: each for each in definitions})
        self.fixture.start()
        servers = {"s": Server(url=self.fixture.url)}
        self.cluster.start(Configuration(servers=servers, keys={"root": key(KEY)}))
        wanted = {each["name"] for each in definitions}
        until_blocking(lambda: wanted <= set(self.client.tools()), "everything is listed")

    def stop(self) -> None:
        """Stop everything."""
        self.cluster.stop()
        self.fixture.kill()

    @property
    def client(self) -> Client:
        """A client at the endpoint of the server."""
        client = self.cluster.client(KEY)
        return Client(f"{client.endpoint}/s", KEY)

    def list_instead(self, number: int, changed: dict[str, Any]) -> None:
        """Replace the server's definitions and wait until the gateway has listed them."""
        schema = {"type": "object"}
        mark = {"name": MARK, "description": f"round {number}", "inputSchema": schema}
        self._write({**changed, MARK: mark})
        body, headers = stateless("tools/call", {"name": TRIGGER, "arguments": {}})
        Client(self.fixture.url).post(body, **headers)
        until_blocking(lambda: self._arrived(mark), f"round {number}")

    def _write(self, definitions: dict[str, Any]) -> None:
        new = self._definitions.with_suffix(".new")
        new.write_text(json.dumps(definitions))
        new.replace(self._definitions)

    def _arrived(self, mark: dict[str, Any]) -> bool:
        async def look(bus: Bus) -> Listing:
            entry = await (await bus.bucket(CATALOGUE)).get("s")
            assert entry is not None
            return Listing.decode(entry.value or b"{}")

        return any(held.definition == mark for held in self.cluster.on_the_bus(look).quarantined)


def seconds_to_approve(place: Place, definitions: list[Any]) -> list[float]:
    """Return seconds from an approval's write until the tool is listed, for one after another."""
    names = [each["name"] for each in definitions if each["name"] not in (*KEPT, TRIGGER)]
    names = names[:APPROVED]
    changed = {
        each["name"]: {**each, "description": "Changed."}
        for each in definitions
        if each["name"] in names
    }
    place.list_instead(-1, changed)

    async def approve(bus: Bus) -> list[float]:
        pins = await bus.bucket(PINS)
        return [await one(pins, name) for name in names]

    async def one(pins: Bucket, name: str) -> float:
        definition = changed[name]
        pin = Pin(digest=digest_of(definition), definition=definition, by="bench")
        began = perf_counter()
        await pins.put(pin_key("tools", "s", name), pin.encode())
        while name not in await asyncio.to_thread(place.client.tools):
            pass
        return perf_counter() - began

    return place.cluster.on_the_bus(approve)


def definitions_of(directory: Path) -> list[Any]:
    """Return the definitions of two published servers and the fixture server as they list them."""
    subprocess.run(["git", "init", "-q", str(directory)], check=True)
    commands = (
        [installed("mcp-server-git"), "--repository", str(directory)],
        [installed("mcp-server-time"), "--local-timezone", "UTC"],
    )
    published = [
        each for command in commands for each in asyncio.run(listed_by(command, directory))
    ]
    return [*published, *(tool.listed for tool in TOOLS.values())]


async def listed_by(command: list[str], cwd: Path) -> list[Any]:
    """Return the definitions of a stdio server, which sees the directory."""

    async def nothing(_call: Any) -> None:
        return

    news = UpstreamCallbacks(lambda: None, lambda _method, _params: None, nothing)
    upstream = StdioUpstream(command, {"PATH": os.environ["PATH"]}, str(cwd), news)
    await upstream.open()
    try:
        found: list[Any] = (await upstream.list_page("tools/list", None))["tools"]
        return found
    finally:
        await upstream.close()


def main() -> int:
    """Run the benchmark; return 1 if a mutant was listed or called."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        definitions = definitions_of(Path(directory) / "repository")
        place = Place(Path(directory))
        try:
            began = perf_counter()
            place.start(definitions)
            console.print(f"{len(definitions)} definitions pinned; seed {given.seed}")
            listed, called = _tried(place, definitions, given.mutants, random.Random(given.seed))
            worst = max(seconds_to_approve(place, definitions))
        finally:
            place.stop()
    took = perf_counter() - began
    console.print(f"{given.mutants:,} mutants: {called} callable, {listed} listed ({took:.0f} s)")
    console.print(f"approval to listed: {1000 * worst:.0f} ms at worst of {APPROVED}")
    figures = {"mutants": given.mutants, "listed": listed, "called": called}
    keep("pins", {"asked": vars(given), **figures, "approval_s": worst})
    return 1 if listed or called else 0


def _tried(
    place: Place, definitions: list[Any], wanted: int, chance: random.Random
) -> tuple[int, int]:
    """Return how many mutants were listed, and how many were answered or reached the server."""
    pinned = [each for each in definitions if each["name"] not in KEPT]
    listed = called = made = 0
    place.fixture.forget()
    for number in track(range(-(-wanted // len(pinned))), console=console):
        some = pinned[: wanted - made]
        mutants = {each["name"]: mutant(each, chance) for each in some}
        place.list_instead(number, mutants)
        client = place.client
        untouched = {each["name"] for each in pinned[len(some) :]}
        listed += len(set(client.tools()) - set(KEPT) - untouched)
        names = {*mutants, *(str(each.get("name")) for each in mutants.values())}
        answers = (client.call(name).json for name in names - set(KEPT) - untouched)
        called += sum("error" not in answer for answer in answers)
        for name in KEPT:
            assert "result" in client.call(name, {"name": "x", "text": "x"}).json, "a control"
        made += len(some)
    reached = set(place.fixture.seen()["tools"]) - {*KEPT, TRIGGER}
    return listed, max(called, len(reached))


if __name__ == "__main__":
    sys.exit(main())
