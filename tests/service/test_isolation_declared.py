"""What a declaration bounds, from the declaration to the process and back to who reads of it."""

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
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIG
from toolbus_common.settings import Settings
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
    with socket.create_connection((gate.hostname, gate.port), 60) as made:
        made.sendall(f"CONNECT {sys.argv[2]} HTTP/1.1\\r\\n\\r\\n".encode())
        return made.makefile("rb").readline().decode()
known = {
    "initialize": {"protocolVersion": "2025-06-18", "serverInfo": {},
                   "capabilities": {"tools": {}}},
    "tools/list": {"tools": [{"name": "asks", "inputSchema": {"type": "object"}}]},
}
for line in sys.stdin:
    asked = json.loads(line)
    told = known.get(asked["method"])
    if asked["method"] == "tools/call":
        told = {"content": [{"type": "text", "text": asks()}]}
    if "id" in asked:
        said = {"error": {"code": -32601, "message": "?"}} if told is None else {"result": told}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **said}), flush=True)
    if asked["method"] == "tools/list" and begun:
        computes()
"""


def server(place: Path | str, asks_for: str, **bounds: Any) -> Server:
    command = (sys.executable, "-c", SERVER, str(place), asks_for)
    return Server.model_validate({"command": command, **bounds})


async def test_a_server_beyond_its_limit_is_lost_for_it_and_back(
    settings: Settings,
    operator: Bus,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lasting_leases: None,  # noqa: ARG001 - who lost its lease would be there twice, and lost never
) -> None:
    monkeypatch.setenv("TOOLBUS_STATE_DIR", str(settings.state_dir))
    monkeypatch.setenv("TOOLBUS_NATS_URL", settings.nats_url)
    config = await operator.bucket(CONFIG)
    written = {"write": [str(tmp_path)]}
    declared = server(tmp_path, "", limits={"cpu_seconds": 1}, files=written)
    whole = Configuration(servers={"s": declared})
    await config.put("configuration", whole.model_dump_json().encode())
    service = build(LocalTransport())
    messages: list[Event] = []
    say = service.events.publish

    def heard(event: Event) -> None:
        messages.append(event)
        say(event)

    monkeypatch.setattr(service.events, "publish", heard)

    def kinds() -> list[type[Event]]:
        return [type(each) for each in messages if isinstance(each, ServerConnected | ServerLost)]

    async with service.running():
        expected = [ServerConnected, ServerLost, ServerConnected]
        await until(lambda: kinds()[:3] == expected, "its loss, and its return")
    (lost, *_) = (each for each in messages if isinstance(each, ServerLost))
    assert "it exceeded limits.cpu_seconds" in lost.reason


@asynccontextmanager
async def asking(declared: Server, ways: DialerFactory) -> AsyncIterator[CallRunner]:
    bench = CallRunner()
    upstream = reached(declared, bench.news, ways, {}, name="docs")
    try:
        await bench.open(upstream)
        yield bench
    finally:
        await upstream.close()


async def test_a_private_address_that_is_listed_needs_the_operators_word_too() -> None:
    async def meet(*_streams: Any) -> None:
        pass

    async with served(meet) as port:
        place = f"127.0.0.1:{port}"
        declared = server("nowhere", place, network={"hosts": [place]})
        named = ConfirmedTargets()
        async with asking(declared, DialerFactory(STRICT, named)) as bench:
            assert "403" in (await bench.call("asks")).text
            assert bench.upstream.refused_hosts == {place: 1}  # type: ignore[attr-defined]
            named.apply_change(Change(NAMED, encoded({digest_of(declared)}), 1))
            assert "200" in (await bench.call("asks")).text
            wider = declared.model_copy(update={"network": "any"})
            assert digest_of(wider) != digest_of(declared), "what is listed is part of the word"
