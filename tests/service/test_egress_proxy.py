"""The egress proxy of server processes: the hosts a real process reaches on this machine."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness.network.tcp_servers import served
from harness.waits import until
from toolbus_common.egress import Allowed, Egress, Target
from toolbus_executor.isolation.child_process import Child
from toolbus_executor.isolation.network import egress_proxy as gates
from toolbus_executor.isolation.network.egress_proxy import EgressProxy
from toolbus_executor.isolation.plan import Isolation
from toolbus_executor.transport.dialer import Dialer

LISTED, OTHER, INSIDE = "docs.example", "collector.example", "inside.example"
TRIES = """
import json, os, socket, sys, urllib.error, urllib.request
from urllib.parse import urlsplit
port = int(sys.argv[1])
gate = urlsplit(os.environ.get("HTTPS_PROXY", "http://127.0.0.1:1"))
def fetched(url, *handlers):
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=60) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    except OSError:
        return "no way"
def sent(head):
    with socket.create_connection((gate.hostname, gate.port), 60) as connection:
        connection.sendall(head)
        return connection.makefile("rb").read().decode()
def tunnelled(place):
    return sent(f"CONNECT {place} HTTP/1.1\\r\\n\\r\\nGET /in HTTP/1.1\\r\\n\\r\\n".encode())
def looked_up(name):
    try:
        return bool(socket.getaddrinfo(name, 80))
    except OSError:
        return False
direct = urllib.request.ProxyHandler({})
"""


@dataclass
class RecordingServer:
    """A server of this machine, its requests, and the names that were resolved."""

    port: int = 0
    heads: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    async def resolve(self, target: Target) -> list[str]:
        """Resolve every name to this machine, and INSIDE to an address that is not listed."""
        self.names.append(target.host)
        return ["127.0.0.9" if target.host == INSIDE else "127.0.0.1"]

    def gate(self, *hosts: str) -> EgressProxy:
        """Return a proxy with these hosts, and this machine's own address, listed."""
        dialer = Dialer(Egress(Allowed.of("127.0.0.1")), resolve=self.resolve)
        return EgressProxy("docs", Allowed.of(" ".join(hosts)), dialer)

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    server = RecordingServer()
    async with served(server.meet) as server.port:
        yield server


@asynccontextmanager
async def program(script: str, gate: EgressProxy, port: int) -> AsyncIterator[list[bytes]]:
    """Run a process behind a proxy, and yield the lines it prints."""
    lines: list[bytes] = []
    child = Child(lines.append)
    command = [sys.executable, "-c", TRIES + script, str(port)]
    try:
        await child.start(command, dict(os.environ), None, Isolation(network="hosts", gate=gate))
        await until(lambda: lines or child.ended.done(), "what it printed")
        yield lines
    finally:
        await child.close()


async def output_of(script: str, gate: EgressProxy, port: int) -> Any:
    """Return the JSON output of a program behind a proxy."""
    async with program(f"print(json.dumps({script}), flush=True)", gate, port) as lines:
        return json.loads(lines[0])


async def test_a_listed_host_is_reached_without_traces_of_the_proxy(
    server: RecordingServer,
) -> None:
    gate = server.gate(f"{LISTED}:{server.port}")
    script = f"""{{
        "forwarded": fetched(f"http://{LISTED}:{{port}}/path?q=1"),
        "tunnelled": tunnelled(f"{LISTED}:{{port}}"),
    }}"""
    found = await output_of(script, gate, server.port)
    assert found["forwarded"] == "hello"
    assert found["tunnelled"].startswith("HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200")
    plain, tunnel = server.heads
    assert plain.startswith("GET /path?q=1 HTTP/1.1\r\n")
    assert f"Host: {LISTED}:{server.port}\r\n" in plain
    assert "proxy" not in plain.lower()
    assert tunnel == "GET /in HTTP/1.1\r\n\r\n"
    assert gate.refused == {}


async def test_no_other_host_is_reached_in_any_way(server: RecordingServer) -> None:
    gate = server.gate(f"{LISTED}:{server.port}", f"{INSIDE}:{server.port}")
    script = f"""{{
        "other": fetched(f"http://{OTHER}:{{port}}/"),
        "other by tunnel": tunnelled(f"{OTHER}:{{port}}"),
        "other port": tunnelled(f"{LISTED}:{{port + 1}}"),
        "address by tunnel": tunnelled(f"127.0.0.1:{{port}}"),
        "inside": tunnelled(f"{INSIDE}:{{port}}"),
        "another Host": sent(f"GET http://{OTHER}:{{port}}/ HTTP/1.1\\r\\n"
                              f"Host: {LISTED}:{{port}}\\r\\n\\r\\n".encode()),
        "loopback": fetched(f"http://127.0.0.1:{{port}}/", direct),
        "address": fetched("http://192.0.2.1/", direct),
        "six": fetched("http://[2001:db8::1]/", direct),
        "names": looked_up("{LISTED}"),
    }}"""
    found = await output_of(script, gate, server.port)
    refused = [found.pop(each) for each in ("other", "other by tunnel", "other port")]
    refused += [found.pop(each) for each in ("address by tunnel", "another Host", "inside")]
    assert all("403" in each for each in refused), refused
    assert (
        f"docs is not allowed to connect to {OTHER}:{server.port}; an operator can list"
        in refused[0]
    )
    assert "loopback" in refused[-1], "a listed name with a forbidden address"
    assert found == {"loopback": "no way", "address": "no way", "six": "no way", "names": False}
    assert server.heads == []
    assert set(server.names) == {INSIDE}, "unlisted names are not resolved"
    assert gate.refused[f"{OTHER}:{server.port}"] == 3


async def test_a_request_that_is_not_for_a_proxy_is_rejected(server: RecordingServer) -> None:
    script = """[sent(each) for each in (
        b"GET / HTTP/1.1\\r\\n\\r\\n", b"SSH-2.0-x\\r\\n\\r\\n",
        b"CONNECT http://docs.example/ HTTP/1.1\\r\\n\\r\\n",
        b"GET http://docs.example/ HTTP/1.1\\r\\nA: b\\r\\n folded\\r\\n\\r\\n",
    )]"""
    found = await output_of(script, server.gate(LISTED), server.port)
    assert ["This is a proxy" in each for each in found] == [True] * 4
    assert server.names == []


async def test_one_server_has_a_limited_number_of_connections(
    server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "MAX_OPEN", 3)
    monkeypatch.setattr(gates, "MAX_BYTES", 1 << 40)  # they may all come in the same moment
    script = f"""
connection = [socket.create_connection((gate.hostname, gate.port), 60) for _ in range(4)]
fourth = connection.pop().makefile("rb").read().decode()
for each in connection:
    each.sendall(f"CONNECT {LISTED}:{{port}} HTTP/1.1\\r\\n\\r\\n".encode())
print(json.dumps([fourth, *(each.recv(12).decode() for each in connection)]), flush=True)
"""
    async with program(script, server.gate(f"{LISTED}:{server.port}"), server.port) as lines:
        fourth, *others = json.loads(lines[0])
    assert "503 Service Unavailable" in fourth
    assert others == ["HTTP/1.1 200"] * 3, "earlier connections are not closed for later ones"


async def test_a_proxy_ends_with_its_process(server: RecordingServer) -> None:
    gate = server.gate(f"{LISTED}:{server.port}")
    script = f"""
connection = socket.create_connection((gate.hostname, gate.port), 60)
connection.sendall(f"CONNECT {LISTED}:{{port}} HTTP/1.1\\r\\n\\r\\n".encode())
print(json.dumps(connection.recv(12).decode()), flush=True)
sys.stdin.read()
"""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    async with program(script, gate, server.port) as lines:
        assert json.loads(lines[0]) == "HTTP/1.1 200"
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before, "all files closed")  # noqa: PTH208
