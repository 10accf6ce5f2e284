"""Idle server processes: stopped without work, and started again by the next call."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from harness.audit.events import bus_of
from harness.clients.bus_operator import servers_of
from harness.programs.marked_processes import marked
from harness.services.call_runner import admitted
from harness.waits import until, until_async
from toolbus_common.config import Configuration, Server
from toolbus_common.config.servers.isolation import Files
from toolbus_common.contracts import (
    SERVER_COMMAND_PREFIX,
    CallError,
    CallResult,
    Listing,
    ServerCommand,
    decode_reply,
)
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CATALOGUE, CONFIG
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.settings import Settings
from toolbus_executor import main
from toolbus_executor.main import build

WELL = "ready", "closed"
SERVER = """
import json, pathlib, sys, time
place = pathlib.Path(sys.argv[1])
def note(word):
    with (place / "seen").open("a") as seen:
        seen.write(word)
note("+")
time.sleep(float(sys.argv[3]))
tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("plain", "hang")]
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "tools/list":
        note("-")
    result = {
        "initialize": {"result": {"protocolVersion": "2025-06-18", "serverInfo": {},
                                  "capabilities": {"tools": {}}}},
        "tools/list": {"result": {"tools": tools}},
        "tools/call": {"result": {"content": [{"type": "text", "text": "here"}]}},
    }.get(message["method"], {"error": {"code": -32601, "message": "Method not found"}})
    if "id" in message and message.get("params", {}).get("name") != "hang":
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **result}), flush=True)
"""


class Installation:
    """Executors with servers that record their starts, and a policy that publishes calls."""

    def __init__(self, settings: Settings, operator: Bus, policy: Bus, directory: Path) -> None:
        self.directory = directory
        self._settings = settings
        self._operator = operator
        self._policy = policy
        self._replies: dict[str, Any] = {}

    def server(self, mark: str, pause: float = 0.0, **more: Any) -> Server:
        """Return a server's configuration."""
        return Server(
            command=(sys.executable, "-c", SERVER, str(self.directory), mark, str(pause)),
            files=Files(write=(str(self.directory),)),
            **more,
        )

    @property
    def record(self) -> str:
        """The recorded starts (`+`) and listings (`-`)."""
        record = self.directory / "seen"
        return record.read_text() if record.exists() else ""

    @asynccontextmanager
    async def executor(self, servers: dict[str, Server]) -> AsyncIterator[None]:
        """Run an executor with these servers."""
        config = await self._operator.bucket(CONFIG)
        declared = Configuration(servers=servers)
        await config.put("configuration", declared.model_dump_json().encode())
        async with build(ProcessContext()).running():
            yield

    async def listen(self) -> None:
        """Subscribe to the replies of calls."""
        await self._policy.subscribe("tb.reply.policy.o.*", self._receive)
        await self._policy.settled()

    async def begin(self, tool: str, number: str) -> None:
        """Publish a call of the server s."""
        call = admitted(tool, call_id=number, reply_to=f"tb.reply.policy.o.{number}")
        await self._policy.publish("tb.run.s", call.encode())

    async def end(self, number: str) -> Any:
        """Return the final reply of a call."""
        return await until(lambda: self._replies.get(number), "the call's end")

    async def call(self, number: str) -> Any:
        """Make a call and return its final reply."""
        await self.begin("plain", number)
        return await self.end(number)

    async def rows(self) -> tuple[dict[str, Any], ...]:
        """Return the executor's rows of its servers."""
        return await servers_of(self._operator)

    async def well(self) -> bool:
        """Return whether all servers are ready, with their breakers closed."""
        rows = await self.rows()
        return bool(rows) and all((row["state"], row["breaker"]) == WELL for row in rows)

    async def is_busy(self) -> bool:
        """Return whether six calls are running."""
        return any(row["in_flight"] == 6 for row in await self.rows())

    async def asleep(self) -> bool:
        """Return whether all servers sleep."""
        rows = await self.rows()
        return bool(rows) and all(row["idle"] for row in rows)

    async def listing(self) -> Listing:
        """Return the published listing of the server s."""
        entry = await (await self._operator.bucket(CATALOGUE)).get("s")
        assert entry is not None
        assert entry.value is not None
        return Listing.decode(entry.value)

    async def reset(self) -> None:
        """Reset the server s, as an operator does."""
        config = await self._operator.bucket(CONFIG)
        await config.put(f"{SERVER_COMMAND_PREFIX}s", ServerCommand(resets=1).encode())

    def _receive(self, payload: bytes, subject: str, _reply: str) -> None:
        self._replies[subject.rpartition(".")[2]] = decode_reply(payload)


@pytest.fixture
async def installation(
    settings: Settings,
    operator: Bus,
    tmp_path: Path,
    lasting_leases: None,  # noqa: ARG001 - starts are counted
) -> AsyncIterator[Installation]:
    async with bus_of("policy", settings) as policy:
        installation = Installation(settings, operator, policy, tmp_path)
        await installation.listen()
        yield installation


async def test_an_idle_server_is_stopped_and_started_again_by_one_call(
    installation: Installation, mark: str
) -> None:
    async with installation.executor({"s": installation.server(mark, idle=0.2)}):
        for number in ("1", "2"):
            await until_async(installation.asleep, "its sleep")
            await until(lambda: marked(mark) == [], "the end of its process")
            listing = await installation.listing()
            assert (listing.state, len(listing.tools)) == ("ready", 2)
            assert isinstance(await installation.call(number), CallResult)
        # Two starts for listing (for clients with and without capabilities), and one for each call.
    assert installation.record.count("+") == 4


async def test_a_call_that_cannot_wait_for_a_starting_server_is_retryable(
    installation: Installation, mark: str
) -> None:
    slow = installation.server(mark, pause=1.0, idle=0.2, timeout=0.3)
    async with installation.executor({"s": slow}):
        await until_async(installation.asleep, "its sleep")
        result = await installation.call("1")
        assert isinstance(result, CallError)
        assert result.error.code == "upstream_timeout"
        assert "was stopped because it was idle" in result.error.reason
        assert result.error.data["retryable"] is True, "not dispatched"


async def test_a_starting_executor_does_not_start_a_known_server(
    installation: Installation, mark: str
) -> None:
    servers = {"s": installation.server(mark, idle=0.2)}
    async with installation.executor(servers):
        await until_async(installation.asleep, "its sleep")
    before = installation.record
    async with installation.executor(servers):
        await until_async(installation.asleep, "its sleep")
        assert (await installation.listing()).state == "ready"
        assert installation.record == before
        await installation.reset()
        await until(lambda: installation.record != before, "a start for another listing")
        await until_async(installation.asleep, "its sleep")
    before = installation.record
    changed = {"s": installation.server(mark, idle=0.2, timeout=7)}
    async with installation.executor(changed):
        await until(lambda: installation.record != before, "a start after a changed configuration")


async def test_a_killed_process_is_started_again_with_its_breaker_closed(
    installation: Installation, mark: str
) -> None:
    async with installation.executor({"s": installation.server(mark)}):
        await until_async(installation.well, "a server")
        for number in range(6):
            await installation.begin("hang", str(number))
        await until_async(installation.is_busy, "calls under way")
        starts = installation.record.count("+")
        for pid in marked(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ends = [await installation.end(str(number)) for number in range(6)]
        assert [end.error.code for end in ends] == ["upstream_dead"] * 6
        assert await installation.well(), "the end of a process is one failure for all its calls"
        assert isinstance(await installation.call("again"), CallResult)
        assert installation.record.count("+") == starts + 1


async def test_the_number_of_concurrent_starts_is_limited(
    installation: Installation, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "MAX_STARTS", 2)
    servers = {f"s{number}": installation.server(mark, 0.1) for number in range(6)}
    async with installation.executor(servers):
        await until(lambda: installation.record.count("-") == 6, "six listings")
        record = installation.record
    at_once, maximum = 0, 0
    for each in record:
        at_once += 1 if each == "+" else -1
        maximum = max(maximum, at_once)
    assert maximum <= 2
