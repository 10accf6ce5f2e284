"""Processes that are ended when nothing is to be done, and are back with the next call."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from harness.audit.events import bus_of
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
    ServersQuery,
    ServersReply,
    decode_reply,
)
from toolbus_common.errors import UnavailableError
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CATALOGUE, CONFIG
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
    asked = json.loads(line)
    if asked["method"] == "tools/list":
        note("-")
    told = {
        "initialize": {"result": {"protocolVersion": "2025-06-18", "serverInfo": {},
                                  "capabilities": {"tools": {}}}},
        "tools/list": {"result": {"tools": tools}},
        "tools/call": {"result": {"content": [{"type": "text", "text": "here"}]}},
    }.get(asked["method"], {"error": {"code": -32601, "message": "Method not found"}})
    if "id" in asked and asked.get("params", {}).get("name") != "hang":
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **told}), flush=True)
"""


class Installation:
    """Executors over servers that note their starts, and whoever hands them calls."""

    def __init__(self, settings: Settings, operator: Bus, policy: Bus, place: Path) -> None:
        self.place = place
        self._settings = settings
        self._operator = operator
        self._policy = policy
        self._frames: dict[str, Any] = {}

    def server(self, mark: str, pause: float = 0.0, **more: Any) -> Server:
        """A declared one."""
        return Server(
            command=(sys.executable, "-c", SERVER, str(self.place), mark, str(pause)),
            files=Files(write=(str(self.place),)),
            **more,
        )

    @property
    def seen(self) -> str:
        """A plus for every start, a minus for every listing."""
        seen = self.place / "seen"
        return seen.read_text() if seen.exists() else ""

    @asynccontextmanager
    async def executor(self, servers: dict[str, Server]) -> AsyncIterator[None]:
        """One at work on these."""
        config = await self._operator.bucket(CONFIG)
        declared = Configuration(servers=servers)
        await config.put("configuration", declared.model_dump_json().encode())
        async with build(LocalTransport()).running():
            yield

    async def listen(self) -> None:
        """Hear how calls end."""
        await self._policy.subscribe("tb.reply.policy.o.*", self._receive)
        await self._policy.settled()

    async def begin(self, tool: str, number: str) -> None:
        """Hand over a call of the server s."""
        call = admitted(tool, call_id=number, reply_to=f"tb.reply.policy.o.{number}")
        await self._policy.publish("tb.run.s", call.encode())

    async def end(self, number: str) -> Any:
        """How a call ended."""
        return await until(lambda: self._frames.get(number), "the call's end")

    async def call(self, number: str) -> Any:
        """Both."""
        await self.begin("plain", number)
        return await self.end(number)

    async def rows(self) -> tuple[dict[str, Any], ...]:
        """What the executor tells of its servers."""
        try:
            return (
                await RequestReply(OPERATOR, self._operator).request(ServersQuery(), ServersReply)
            ).servers
        except UnavailableError:
            return ()

    async def well(self) -> bool:
        """Whether all of them are there, with their breakers closed."""
        rows = await self.rows()
        return bool(rows) and all((row["state"], row["breaker"]) == WELL for row in rows)

    async def at_work(self) -> bool:
        """Whether six calls are under way."""
        return any(row["in_flight"] == 6 for row in await self.rows())

    async def asleep(self) -> bool:
        """Whether all of them sleep."""
        rows = await self.rows()
        return bool(rows) and all(row["asleep"] for row in rows)

    async def shown(self) -> Listing:
        """What is published of the server s."""
        entry = await (await self._operator.bucket(CATALOGUE)).get("s")
        assert entry is not None
        assert entry.value is not None
        return Listing.decode(entry.value)

    async def reset(self) -> None:
        """Have the server s met anew, as an operator does."""
        config = await self._operator.bucket(CONFIG)
        await config.put(f"{SERVER_COMMAND_PREFIX}s", ServerCommand(resets=1).encode())

    def _receive(self, payload: bytes, subject: str, _reply: str) -> None:
        self._frames[subject.rpartition(".")[2]] = decode_reply(payload)


@pytest.fixture
async def installation(
    settings: Settings,
    operator: Bus,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lasting_leases: None,  # noqa: ARG001 - starts are counted
) -> AsyncIterator[Installation]:
    monkeypatch.setenv("TOOLBUS_STATE_DIR", str(settings.state_dir))
    monkeypatch.setenv("TOOLBUS_NATS_URL", settings.nats_url)
    async with bus_of("policy", settings) as policy:
        made = Installation(settings, operator, policy, tmp_path)
        await made.listen()
        yield made


async def test_a_server_without_work_is_ended_and_back_in_one_call(
    installation: Installation, mark: str
) -> None:
    async with installation.executor({"s": installation.server(mark, idle=0.2)}):
        for number in ("1", "2"):
            await until_async(installation.asleep, "its sleep")
            await until(lambda: marked(mark) == [], "the end of its process")
            listing = await installation.shown()
            assert (listing.state, len(listing.tools)) == ("ready", 2)
            assert isinstance(await installation.call(number), CallResult)
        # Twice to be listed (for clients with and without capabilities), and once for each call.
    assert installation.seen.count("+") == 4


async def test_a_call_that_cannot_wait_for_a_server_to_wake_may_be_made_again(
    installation: Installation, mark: str
) -> None:
    slow = installation.server(mark, pause=1.0, idle=0.2, timeout=0.3)
    async with installation.executor({"s": slow}):
        await until_async(installation.asleep, "its sleep")
        result = await installation.call("1")
        assert isinstance(result, CallError)
        assert result.error.code == "upstream_timeout"
        assert "was asleep" in result.error.reason
        assert result.error.data["retryable"] is True, "nothing was sent"


async def test_an_executor_that_begins_starts_no_server_it_knows(
    installation: Installation, mark: str
) -> None:
    servers = {"s": installation.server(mark, idle=0.2)}
    async with installation.executor(servers):
        await until_async(installation.asleep, "its sleep")
    before = installation.seen
    async with installation.executor(servers):
        await until_async(installation.asleep, "its sleep")
        assert (await installation.shown()).state == "ready"
        assert installation.seen == before
        await installation.reset()
        await until(lambda: installation.seen != before, "a start to list it anew")
        await until_async(installation.asleep, "its sleep")
    before = installation.seen
    changed = {"s": installation.server(mark, idle=0.2, timeout=7)}
    async with installation.executor(changed):
        await until(lambda: installation.seen != before, "a start of what is declared otherwise")


async def test_a_process_that_is_killed_is_back_with_its_breaker_closed(
    installation: Installation, mark: str
) -> None:
    async with installation.executor({"s": installation.server(mark)}):
        await until_async(installation.well, "a server")
        for number in range(6):
            await installation.begin("hang", str(number))
        await until_async(installation.at_work, "calls under way")
        starts = installation.seen.count("+")
        for pid in marked(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ends = [await installation.end(str(number)) for number in range(6)]
        assert [end.error.code for end in ends] == ["upstream_dead"] * 6
        assert await installation.well(), "one end of a process is one failure, however many calls"
        assert isinstance(await installation.call("again"), CallResult)
        assert installation.seen.count("+") == starts + 1


async def test_not_all_servers_are_started_at_once(
    installation: Installation, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "MOST_STARTS", 2)
    fleet = {f"s{number}": installation.server(mark, 0.1) for number in range(6)}
    async with installation.executor(fleet):
        await until(lambda: installation.seen.count("-") == 6, "six listings")
        seen = installation.seen
    at_once, most = 0, 0
    for each in seen:
        at_once += 1 if each == "+" else -1
        most = max(most, at_once)
    assert most <= 2
