"""Processes that may reach some hosts and no others: what a real one reaches on this machine."""

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
def asked(head):
    with socket.create_connection((gate.hostname, gate.port), 60) as made:
        made.sendall(head)
        return made.makefile("rb").read().decode()
def tunnelled(place):
    return asked(f"CONNECT {place} HTTP/1.1\\r\\n\\r\\nGET /in HTTP/1.1\\r\\n\\r\\n".encode())
def looked_up(name):
    try:
        return bool(socket.getaddrinfo(name, 80))
    except OSError:
        return False
direct = urllib.request.ProxyHandler({})
"""


@dataclass
class Outside:
    """A server of this machine, what it was asked, and which names were looked up."""

    port: int = 0
    heads: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    async def resolve(self, target: Target) -> list[str]:
        """Every name means this machine, INSIDE an address of it that nobody listed."""
        self.names.append(target.host)
        return ["127.0.0.9" if target.host == INSIDE else "127.0.0.1"]

    def gate(self, *hosts: str) -> EgressProxy:
        """As an operator has it who lists these, and this machine's own address."""
        way = Dialer(Egress(Allowed.of("127.0.0.1")), resolve=self.resolve)
        return EgressProxy("docs", Allowed.of(" ".join(hosts)), way)

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    made = Outside()
    async with served(made.meet) as made.port:
        yield made


@asynccontextmanager
async def program(script: str, gate: EgressProxy, port: int) -> AsyncIterator[list[bytes]]:
    """A process behind a gate, and the lines it prints."""
    lines: list[bytes] = []
    child = Child(lines.append)
    command = [sys.executable, "-c", TRIES + script, str(port)]
    try:
        await child.start(command, dict(os.environ), None, Isolation(network="hosts", gate=gate))
        await until(lambda: lines or child.ended.done(), "what it printed")
        yield lines
    finally:
        await child.close()


async def told(script: str, gate: EgressProxy, port: int) -> Any:
    """What a program behind a gate printed as JSON."""
    async with program(f"print(json.dumps({script}), flush=True)", gate, port) as lines:
        return json.loads(lines[0])


async def test_a_listed_host_is_reached_and_told_nothing_of_the_gate(outside: Outside) -> None:
    gate = outside.gate(f"{LISTED}:{outside.port}")
    script = f"""{{
        "forwarded": fetched(f"http://{LISTED}:{{port}}/path?q=1"),
        "tunnelled": tunnelled(f"{LISTED}:{{port}}"),
    }}"""
    found = await told(script, gate, outside.port)
    assert found["forwarded"] == "hello"
    assert found["tunnelled"].startswith("HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200")
    plain, tunnel = outside.heads
    assert plain.startswith("GET /path?q=1 HTTP/1.1\r\n")
    assert f"Host: {LISTED}:{outside.port}\r\n" in plain
    assert "proxy" not in plain.lower()
    assert tunnel == "GET /in HTTP/1.1\r\n\r\n"
    assert gate.refused == {}


async def test_nothing_else_is_reached_by_whatever_way(outside: Outside) -> None:
    gate = outside.gate(f"{LISTED}:{outside.port}", f"{INSIDE}:{outside.port}")
    script = f"""{{
        "other": fetched(f"http://{OTHER}:{{port}}/"),
        "other by tunnel": tunnelled(f"{OTHER}:{{port}}"),
        "other port": tunnelled(f"{LISTED}:{{port + 1}}"),
        "address by tunnel": tunnelled(f"127.0.0.1:{{port}}"),
        "inside": tunnelled(f"{INSIDE}:{{port}}"),
        "another Host": asked(f"GET http://{OTHER}:{{port}}/ HTTP/1.1\\r\\n"
                              f"Host: {LISTED}:{{port}}\\r\\n\\r\\n".encode()),
        "loopback": fetched(f"http://127.0.0.1:{{port}}/", direct),
        "address": fetched("http://192.0.2.1/", direct),
        "six": fetched("http://[2001:db8::1]/", direct),
        "names": looked_up("{LISTED}"),
    }}"""
    found = await told(script, gate, outside.port)
    refused = [found.pop(each) for each in ("other", "other by tunnel", "other port")]
    refused += [found.pop(each) for each in ("address by tunnel", "another Host", "inside")]
    assert all("403" in each for each in refused), refused
    assert f"docs may not reach {OTHER}:{outside.port}; the operator can list hosts" in refused[0]
    assert "loopback" in refused[-1], "a listed name that means where nothing may be called"
    assert found == {"loopback": "no way", "address": "no way", "six": "no way", "names": False}
    assert outside.heads == []
    assert set(outside.names) == {INSIDE}, "of what is not listed no name is looked up"
    assert gate.refused[f"{OTHER}:{outside.port}"] == 3


async def test_what_is_no_request_of_a_proxy_is_told_so(outside: Outside) -> None:
    script = """[asked(each) for each in (
        b"GET / HTTP/1.1\\r\\n\\r\\n", b"SSH-2.0-x\\r\\n\\r\\n",
        b"CONNECT http://docs.example/ HTTP/1.1\\r\\n\\r\\n",
        b"GET http://docs.example/ HTTP/1.1\\r\\nA: b\\r\\n folded\\r\\n\\r\\n",
    )]"""
    found = await told(script, outside.gate(LISTED), outside.port)
    assert ["This is a proxy" in each for each in found] == [True] * 4
    assert outside.names == []


async def test_one_server_has_no_more_connections_than_its_share(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "MOST_OPEN", 3)
    monkeypatch.setattr(gates, "MOST_BYTES", 1 << 40)  # they may all come in the same moment
    script = f"""
made = [socket.create_connection((gate.hostname, gate.port), 60) for _ in range(4)]
fourth = made.pop().makefile("rb").read().decode()
for each in made:
    each.sendall(f"CONNECT {LISTED}:{{port}} HTTP/1.1\\r\\n\\r\\n".encode())
print(json.dumps([fourth, *(each.recv(12).decode() for each in made)]), flush=True)
"""
    async with program(script, outside.gate(f"{LISTED}:{outside.port}"), outside.port) as lines:
        fourth, *others = json.loads(lines[0])
    assert "503 Service Unavailable" in fourth
    assert others == ["HTTP/1.1 200"] * 3, "nobody is turned away for who comes after"


async def test_nothing_is_left_of_a_gate_when_its_process_is(outside: Outside) -> None:
    gate = outside.gate(f"{LISTED}:{outside.port}")
    script = f"""
made = socket.create_connection((gate.hostname, gate.port), 60)
made.sendall(f"CONNECT {LISTED}:{{port}} HTTP/1.1\\r\\n\\r\\n".encode())
print(json.dumps(made.recv(12).decode()), flush=True)
sys.stdin.read()
"""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    async with program(script, gate, outside.port) as lines:
        assert json.loads(lines[0]) == "HTTP/1.1 200"
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before, "what was opened is closed")  # noqa: PTH208
