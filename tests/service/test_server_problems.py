"""Problems of a server: reported by its executor in the status, and published once as an event."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

from nats.js.errors import NotFoundError

from harness.clients.bus_operator import servers_of
from harness.waits import until, until_async
from toolbus_cli.commands.operate.status import faults_of, not_held
from toolbus_common.config import Configuration, Server
from toolbus_common.config.servers.isolation import Files
from toolbus_common.definitions.visible_text import printable
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG, EVENTS
from toolbus_common.service.process_context import ProcessContext
from toolbus_executor.main import build

FLAWED = """
import json, sys
good = {"name": "good", "inputSchema": {"type": "object"}}
bad = [{"name": name} for name in ("bad", "worse")]
for line in sys.stdin:
    message = json.loads(line)
    reply = {
        "initialize": {"result": {"protocolVersion": "2025-06-18", "serverInfo": {},
                                  "capabilities": {"tools": {}, "prompts": {}}}},
        "tools/list": {"result": {"tools": [good, *bad]}},
        "prompts/list": {"error": {"code": -32603, "message": "The store is locked"}},
    }.get(message["method"], {"error": {"code": -32601, "message": "Method not found"}})
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply}), flush=True)
"""
MORTAL = """
import pathlib, sys
place = pathlib.Path(sys.argv[1])
with (place / "starts").open("a") as starts:
    starts.write("x")
sys.exit(int((place / "code").read_text()))
"""


@asynccontextmanager
async def keeping(
    command: tuple[str, ...],
    operator: Bus,
    files: Files | None = None,
) -> AsyncIterator[None]:
    """Run an executor with a server of this command."""
    declared = Configuration(servers={"odd": Server(command=command, files=files)})
    config = await operator.bucket(CONFIG)
    await config.put("configuration", declared.model_dump_json().encode())
    async with build(ProcessContext()).running():
        yield


async def row(operator: Bus) -> dict[str, Any] | None:
    """Return the executor's row of the server, once its state is known."""
    rows = await servers_of(operator)
    return next((each for each in rows if each["state"] != "connecting"), None)


async def events(operator: Bus, name: str) -> list[dict[str, Any]]:
    """Return every event of a name, as published."""
    stream, found = operator.client.jetstream(), list[dict[str, Any]]()
    sequence = 0
    while True:
        try:
            subject = f"tb.event.{name}.*"
            message = await stream.get_msg(EVENTS, seq=sequence + 1, subject=subject, next=True)
        except NotFoundError:
            return found
        sequence = message.seq or 0
        found += [json.loads(line) for line in (message.data or b"").splitlines()]


async def held(operator: Bus) -> dict[str, Any] | None:
    """Return the row once it lists the isolation, which arrives independently of the rest."""
    result = await row(operator)
    return result if result and "no new privileges" in result["isolation"] else None


async def test_invalid_definitions_are_in_the_status_and_an_event(operator: Bus) -> None:
    async with keeping((sys.executable, "-c", FLAWED), operator):
        result: dict[str, Any] = await until_async(lambda: held(operator), "its row")
        message = await until_async(lambda: events(operator, "server.faulted"), "the event")
    assert (result["state"], result["version"], result["tools"]) == ("ready", "2025-06-18", 1)
    assert result["dropped"] == dict.fromkeys(("bad", "worse"), "it has no inputSchema")
    reason = "The upstream returned the JSON-RPC error -32603."
    assert result["failed_lists"] == {"prompts/list": reason}
    assert result["lost_at"] == 0
    assert result["denied_hosts"] == {}
    assert result["isolation"]["no new privileges"], "a process has its isolation in the status"
    assert not_held([result, {"isolation": {"own user": False}}, {}]).count("own user") == 1
    assert not_held([{"isolation": {"own user": True}}]) == ""
    (event,) = message
    assert (event["dropped"], event["failed"]) == (result["dropped"], result["failed_lists"])
    assert list(faults_of(result)) == [
        f"prompts/list fails: {reason}",
        "bad is hidden: it has no inputSchema; and 1 more, see 'toolbus tools --quarantined'",
    ]


async def test_a_loss_is_published_once_and_again_for_another_reason(
    operator: Bus, tmp_path: Path
) -> None:
    def starts() -> int:
        written = tmp_path / "starts"
        return len(written.read_text()) if written.exists() else 0

    def ends_with(code: str) -> None:
        (tmp_path / "new").write_text(code)
        # A process that starts meanwhile reads either.
        (tmp_path / "new").replace(tmp_path / "code")

    ends_with("1")
    command = (sys.executable, "-c", MORTAL, str(tmp_path))
    writes = Files(write=(str(tmp_path),))
    async with keeping(command, operator, writes):
        await until(lambda: starts() >= 6, "three attempts to connect")
        result: dict[str, Any] = await until_async(lambda: row(operator), "its row")
        ends_with("2")
        before = starts()
        await until(lambda: starts() >= before + 4, "attempts with the other exit code")

        async def two() -> bool:
            return len(await events(operator, "server.lost")) > 1

        await until_async(two, "the other reason")
        message = await events(operator, "server.lost")
        later: dict[str, Any] = await until_async(lambda: row(operator), "its row")
    assert len(message) == 2
    assert len({event["reason"] for event in message}) == 2
    assert result["state"] == "failed"
    assert 0 < result["lost_at"] == later["lost_at"], "it was lost all the time"
    assert next(faults_of(result)).startswith("The server has been unreachable for ")


def test_an_ejected_replica_is_reported_with_the_reason() -> None:
    well = {"state": "active", "reason": "", "differs": []}
    row = {
        "name": "docs",
        "state": "ready",
        "probe": {"at": time(), "ok": False, "reason": "It hangs."},
        "replicas": [
            {"replica": "a:1/mcp", **well},
            {"replica": "b:1/mcp", **well, "state": "ejected", "reason": "It broke off."},
            {"replica": "c:1/mcp", **well, "differs": ["add"]},
        ],
        "denied_hosts": {"a.example:443": 1, "b.example:443": 3},
    }
    assert list(faults_of(row)) == [
        "The health probe 0 s ago failed: It hangs.",
        "Replica b:1/mcp is ejected: It broke off.",
        (
            "Replica c:1/mcp gets no calls of add: most replicas have other definitions of these "
            "tools."
        ),
        "Denied connections to hosts that are not configured: b.example:443, a.example:443",
    ]


def test_control_characters_of_a_server_are_printed_as_names() -> None:
    named = "a⟨U+001B ESCAPE⟩[2Jb⟨U+202E RIGHT-TO-LEFT OVERRIDE⟩c\n[d]"
    assert printable("a\x1b[2Jb\u202ec\n[d]") == named
