"""The HTTP edge alone: CPU and Python calls of a request, sessions, lists (`make bench-edge`).

The services behind ingress are replaced by one reply that is ready at once, so that only the edge
is measured. The load comes from another process and is not counted.
"""

import argparse
import asyncio
import gc
import json
import os
import sys
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any, cast

import uvloop

from echo_upstream import definitions
from figures import keep, load, met, row, show
from load import Plan
from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.config import Configuration
from toolbus_common.contracts import CallRequested, CallResult, CatalogEntry, Listing, ServerState
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIGURATION
from toolbus_common.service.asgi_server import serving
from toolbus_common.service.service import Service
from toolbus_ingress.app import App
from toolbus_ingress.http.server import limits_of
from toolbus_ingress.main import application, endpoint_of
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.sessions.sealed_claims import ClaimSealer
from toolbus_ingress.settings import Settings

HERE = Path(__file__).parent
SECRET, AGENT = "tbk_edge_" + "0123456789abcdef" * 2, "tbk_agent_" + "0123456789abcdef" * 2
VERSION = "2026-07-28"
RESULT = {"content": [{"type": "text", "text": "bench"}], "isError": False}
TOOLS = 500
MAX_LIST_MS = 0.3


class ReadyCalls:
    """Calls whose result is ready at once, in place of the transport."""

    def __init__(self) -> None:
        self._count = 0

    def new_call_id(self) -> str:
        """Return the next id."""
        self._count += 1
        return f"{self._count:x}"

    def address(self, call_id: str) -> str:
        """Return a reply subject, which nothing uses."""
        return f"unused.{call_id}"

    async def request(self, call: CallRequested, *_: Any) -> CallResult:
        """Return the arguments' text as a tool's result."""
        text = json.loads(call.arguments).get("text", "")
        return CallResult(b'{"content":[{"type":"text","text":%b}]}' % json.dumps(text).encode())


class ConnectedBus:
    """A bus that drops every message."""

    connected, name = True, "edge"

    async def publish(self, *_: Any) -> None:
        """Drop a message."""


@contextmanager
def edge() -> Iterator[tuple[App, Endpoint, Settings]]:
    """Compose ingress without a bus; the catalogue has one server of 500 tools."""
    with TemporaryDirectory(prefix="toolbus-edge-") as name:
        settings = Settings(state_dir=Path(name))
        service = Service("ingress", settings)
        service.bus = cast("Any", ConnectedBus())
        service.calls = cast("Any", ReadyCalls())
        sealer = ClaimSealer(os.urandom(32))
        endpoint = endpoint_of(service, settings, sealer)
        projection = endpoint.directory.projection
        keys = {"edge": (SECRET, ["echo__*"]), "agent": (AGENT, ["echo__echo"])}
        configuration = Configuration.model_validate(
            {
                "servers": {"echo": {"url": "http://127.0.0.1:1/mcp"}},
                "keys": {
                    name: {"secret_hash": hash_of(key_digest_of(secret)), "tools": tools}
                    for name, (secret, tools) in keys.items()
                },
            }
        )
        projection.apply_change(Change(CONFIGURATION, configuration.model_dump_json().encode(), 1))
        projection.apply_change(None)
        entries = (CatalogEntry(name=each["name"], definition=each) for each in definitions(TOOLS))
        listing = Listing(server="echo", state=ServerState.READY, tools=tuple(entries))
        endpoint.catalogue.apply(Change("echo", listing.encode(), 2))
        yield application(endpoint, sealer, settings), endpoint, settings


def request(method: str, params: dict[str, Any], name: str = "") -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a stateless request."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    headers = {"MCP-Protocol-Version": VERSION, "Mcp-Method": method}
    return (
        json.dumps(message, separators=(",", ":")).encode(),
        headers | ({"Mcp-Name": name} if name else {}),
    )


CALL = request(
    "tools/call", {"name": "echo__echo", "arguments": {"text": "@@@@@@@@ bench"}}, "echo__echo"
)
LIST = request("tools/list", {})


# -- in process --------------------------------------------------------------------------------


def requests_of(app: App, body: bytes, headers: dict[str, str]) -> Callable[[], Awaitable[bytes]]:
    """Return a function that sends one request to the application and returns its answer."""
    fields = {
        "host": "127.0.0.1:8080",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "authorization": f"Bearer {SECRET}",
        **headers,
        "content-length": str(len(body)),
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    whole = {"type": "http.request", "body": body, "more_body": False}

    async def receive() -> dict[str, Any]:
        return whole

    async def ask() -> bytes:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/mcp", "query_string": b"",
            "headers": raw, "client": ("127.0.0.1", 1),
        }  # fmt: skip
        await app(scope, receive, cast("Any", send))
        assert sent[0]["status"] == 200, sent
        return bytes(sent[1]["body"])

    return ask


async def cpu_us(ask: Callable[[], Awaitable[Any]], count: int = 2000, rounds: int = 7) -> float:
    """Return the least CPU per request of several rounds, in µs."""
    for _ in range(200):
        await ask()
    best = float("inf")
    for _ in range(rounds):
        began = process_time()
        for _ in range(count):
            await ask()
        best = min(best, process_time() - began)
    return best / count * 1e6


async def python_calls(ask: Callable[[], Awaitable[Any]]) -> tuple[Counter[str], int]:
    """Return the Python functions that one request calls, and how many are coroutines."""
    for _ in range(10):
        await ask()
    calls: Counter[str] = Counter()
    coroutines = 0

    def note(frame: types.FrameType, event: str, _argument: Any) -> None:
        nonlocal coroutines
        if event == "call" and frame.f_code.co_filename != __file__:
            code = frame.f_code
            calls[f"{Path(code.co_filename).stem}.{code.co_qualname}"] += 1
            coroutines += bool(code.co_flags & 0x80)

    sys.setprofile(note)
    try:
        await ask()
    finally:
        sys.setprofile(None)
    return calls, coroutines


# -- over sockets ------------------------------------------------------------------------------


async def served_us(plan: Plan) -> float:
    """Return this process's CPU per request under load from another process, in µs."""
    used, seen = await _under_load("load.py", asdict(plan))
    assert not seen["wrong"], seen["example"]
    return used / float(seen["all_requests"]) * 1e6


async def _under_load(script: str, plan: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    began = process_time()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / script), json.dumps(plan), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return process_time() - began, json.loads(output)


def load_plan(port: int, sample: tuple[bytes, dict[str, str]], seconds: float) -> Plan:
    """Return the load of one request on a port of this machine."""
    body, headers = sample
    return Plan(
        url=f"http://127.0.0.1:{port}/mcp", key=SECRET, body=body.decode(), headers=headers,
        expect='"result":', connections=32, seconds=seconds,
    )  # fmt: skip


async def _measure(seconds: float, *, verbose: bool) -> dict[str, float]:
    figures: dict[str, float] = {}
    with edge() as (app, endpoint, settings):
        gc.freeze()
        for name, wanted in (("call", CALL), ("list", LIST)):
            ask = requests_of(app, *wanted)
            figures[f"{name}: CPU in the application, µs"] = await cpu_us(ask)
            calls, coroutines = await python_calls(ask)
            figures[f"{name}: Python calls in the application"] = calls.total()
            figures[f"{name}: coroutine steps in the application"] = coroutines
            if verbose:
                print(name, *(f"{n:4} {what}" for what, n in calls.items()), sep="\n")
        limits = limits_of(settings)
        async with serving(app, "edge", "127.0.0.1", 0, limits, 1.0) as listener:
            for name, wanted in (("call", CALL), ("list", LIST)):
                plan = load_plan(listener.port, wanted, seconds)
                figures[f"{name}: CPU with HTTP, µs"] = await served_us(plan)
            plan_of_sessions = {
                "url": f"http://127.0.0.1:{listener.port}/mcp", "key": AGENT,
                "tool": "echo__echo", "seconds": seconds,
            }  # fmt: skip
            used, seen = await _under_load("sessions.py", plan_of_sessions)
            figures["session: CPU with HTTP, µs"] = used / seen["all_sessions"] * 1e6
            figures["session: a second"] = seen["per_second"]
            endpoint.notifications.close()
    return figures


def main() -> int:
    """Run the benchmark; return 0 if the demands hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--verbose", action="store_true", help="print each Python function")
    options = parser.parse_args()
    figures = uvloop.run(_measure(options.seconds, verbose=options.verbose))
    for name, value in figures.items():
        print(f"{name:45} {value:10,.1f}")
    list_ms = figures["list: CPU with HTTP, µs"] / 1000
    rows = [row(f"a list of {TOOLS} tools: CPU ms", list_ms, "<=", MAX_LIST_MS)]
    show(rows)
    keep("edge", {"figures": figures, "rows": rows, **load()})
    return 0 if met(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
