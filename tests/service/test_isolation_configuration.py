"""Configured isolation, from the configuration to the process and back to the status."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.network.tcp_servers import served
from harness.services.call_runner import CallRunner
from harness.waits import until
from toolbus_common.config import Configuration, Server
from toolbus_common.config_store.operator_targets import NAMED, ConfirmedTargets, digest_of, encoded
from toolbus_common.contracts import Event, ServerConnected, ServerLost
from toolbus_common.egress.policy import STRICT
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIG
from toolbus_common.service.process_context import ProcessContext
from toolbus_executor.main import build
from toolbus_executor.transport.dialer_factory import DialerFactory
from toolbus_executor.upstreams.factory import reached

SERVER = """
import json, os, pathlib, socket, sys
from urllib.parse import urlsplit
place = pathlib.Path(sys.argv[1])  # where a first start is noted; it computes for ever
begun = place.is_dir() and not (place / "begun").exists()
if begun:
    (place / "begun").touch()
def computes():
    while True:
        pass
def asks():
    gate = urlsplit(os.environ["HTTPS_PROXY"])
    with socket.create_connection((gate.hostname, gate.port), 60) as connection:
        connection.sendall(f"CONNECT {sys.argv[2]} HTTP/1.1\\r\\n\\r\\n".encode())
        return connection.makefile("rb").readline().decode()
known = {
    "initialize": {"protocolVersion": "2025-06-18", "serverInfo": {},
                   "capabilities": {"tools": {}}},
    "tools/list": {"tools": [{"name": "asks", "inputSchema": {"type": "object"}}]},
}
for line in sys.stdin:
    message = json.loads(line)
    result = known.get(message["method"])
    if message["method"] == "tools/call":
        result = {"content": [{"type": "text", "text": asks()}]}
    if "id" in message:
        body = {"error": {"code": -32601, "message": "?"}} if result is None else {"result": result}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **body}), flush=True)
    if message["method"] == "tools/list" and begun:
        computes()
"""


def server(directory: Path | str, target: str, **bounds: Any) -> Server:
    command = (sys.executable, "-c", SERVER, str(directory), target)
    return Server.model_validate({"command": command, **bounds})


async def test_a_server_beyond_its_limit_is_lost_with_the_reason_and_reconnected(
    operator: Bus,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lasting_leases: None,  # noqa: ARG001 - a server without its lease would run twice, and never be lost
) -> None:
    config = await operator.bucket(CONFIG)
    written = {"write": [str(tmp_path)]}
    declared = server(tmp_path, "", limits={"cpu_seconds": 1}, files=written)
    whole = Configuration(servers={"s": declared})
    await config.put("configuration", whole.model_dump_json().encode())
    service = build(ProcessContext())
    messages: list[Event] = []
    say = service.events.publish

    def record(event: Event) -> None:
        messages.append(event)
        say(event)

    monkeypatch.setattr(service.events, "publish", record)

    def kinds() -> list[type[Event]]:
        return [type(each) for each in messages if isinstance(each, ServerConnected | ServerLost)]

    async with service.running():
        expected = [ServerConnected, ServerLost, ServerConnected]
        await until(lambda: kinds()[:3] == expected, "its loss, and its return")
    (lost, *_) = (each for each in messages if isinstance(each, ServerLost))
    assert "it exceeded limits.cpu_seconds" in lost.reason


@asynccontextmanager
async def asking(declared: Server, dialers: DialerFactory) -> AsyncIterator[CallRunner]:
    client = CallRunner()
    upstream = reached(declared, client.news, dialers, {}, name="docs")
    try:
        await client.open(upstream)
        yield client
    finally:
        await upstream.close()


async def test_a_listed_private_address_needs_the_operators_confirmation_too() -> None:
    async def meet(*_streams: Any) -> None:
        pass

    async with served(meet) as port:
        place = f"127.0.0.1:{port}"
        declared = server("nowhere", place, network={"hosts": [place]})
        named = ConfirmedTargets()
        async with asking(declared, DialerFactory(STRICT, named)) as client:
            assert "403" in (await client.call("asks")).text
            assert client.upstream.denied_hosts == {place: 1}  # type: ignore[attr-defined]
            named.apply_change(Change(NAMED, encoded({digest_of(declared)}), 1))
            assert "200" in (await client.call("asks")).text
            wider = declared.model_copy(update={"network": "any"})
            assert digest_of(wider) != digest_of(declared), (
                "the listed hosts are part of the confirmation"
            )
