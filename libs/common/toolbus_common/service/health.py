"""The operations listener of a process: /healthz, /readyz and /metrics for probes and Prometheus.

It is not the agents' port: server names and volumes are the operator's. It listens on loopback
unless told otherwise, and answers only requests whose `Host` is an IP address, `localhost` or a
name the operator listed, so that no web page reaches it by rebinding a DNS name.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from typing import NamedTuple

from toolbus_common.errors import UnavailableError
from toolbus_common.listen_address import HostPort
from toolbus_common.observability.metrics import SERVICE_READY, exposition
from toolbus_common.service.service import Service

LONGEST_HEAD = 8192
SECONDS = 5.0  # for a request to arrive and its answer to leave
MOST_AT_ONCE = 64  # connections

_JSON = "application/json"
_REASONS = {200: "OK", 503: "Service Unavailable"}


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    content_type: str
    body: bytes


def answer(path: str, services: Iterable[Service]) -> Answer:
    """Answer a path. Ready means: every service of this process can do its work."""
    if path == "/healthz":
        return Answer(200, "", b"")
    if path == "/readyz":
        told = [service.status() for service in services]
        body = json.dumps(
            {status.service: status.reason or "ready" for status in told}, sort_keys=True
        )
        ready = all(status.ready for status in told)
        return Answer(200 if ready else 503, _JSON, body.encode())
    if path == "/metrics":
        for service in services:
            SERVICE_READY.labels(service.name).set(service.status().ready)
        return Answer(200, "text/plain; version=0.0.4; charset=utf-8", exposition())
    return _refused(404, "Only /healthz, /readyz and /metrics are here.")


def respond(head: bytes, services: Iterable[Service], names: frozenset[str]) -> Answer:
    """Answer a request's head. `names` are the hosts allowed beside addresses and localhost."""
    lines = head.split(b"\r\n")
    parts = lines[0].split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):  # noqa: PLR2004
        return _refused(400, "This is no HTTP/1.1 request.")
    fields = [line.partition(b":") for line in lines[1:]]
    hosts = [value for name, _, value in fields if name.strip().lower() == b"host"]
    if len(hosts) != 1 or not _is_ours(hosts[0].strip().decode("latin-1"), names):
        return _refused(
            403,
            "This Host is not served here: ask by IP address, or the operator allows the name "
            "with TOOLBUS_OPS_HOSTS.",
        )
    if parts[0] not in (b"GET", b"HEAD"):
        return _refused(405, "Ask by GET.")
    found = answer(parts[1].partition(b"?")[0].decode("latin-1"), services)
    return found._replace(body=b"") if parts[0] == b"HEAD" else found


@asynccontextmanager
async def serving(
    address: HostPort, services: Callable[[], Iterable[Service]], names: frozenset[str]
) -> AsyncIterator[HostPort]:
    """Answer while this is entered; the address that was bound.

    Raises `UnavailableError` when nothing can listen there.
    """
    connections = 0

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            if connections > MOST_AT_ONCE:
                return
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(SECONDS):
                    writer.write(_written(await _answered(reader, services(), names)))
                    await writer.drain()
        finally:
            connections -= 1
            writer.close()

    try:
        server = await asyncio.start_server(
            connection, address.host, address.port, limit=LONGEST_HEAD
        )
    except OSError as error:
        raise UnavailableError(
            f"The operations listener cannot listen on {address} ({error.strerror or error}); "
            "name another address with --ops-listen or TOOLBUS_OPS_LISTEN, port 0 for any free one."
        ) from error
    try:
        yield HostPort(address.host, int(server.sockets[0].getsockname()[1]))
    finally:
        server.close()


async def _answered(
    reader: asyncio.StreamReader, services: Iterable[Service], names: frozenset[str]
) -> Answer:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return _refused(431, f"The head exceeds {LONGEST_HEAD} bytes.")
    return respond(head, services, names)


def _is_ours(host: str, names: frozenset[str]) -> bool:
    """Whether a Host can only be meant for us: no DNS name but listed ones leads to an address."""
    bare, colon, port = host.lower().rpartition(":")
    if not colon or not port.isdecimal():
        bare = host.lower()
    if bare == "localhost" or bare in names:
        return True
    try:
        ip_address(bare.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _refused(status: int, sentence: str) -> Answer:
    return Answer(status, _JSON, json.dumps({"error": sentence}).encode())


def _written(answer: Answer) -> bytes:
    kind = f"content-type: {answer.content_type}\r\n" if answer.content_type else ""
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Refused')}\r\n"
        f"{kind}content-length: {len(answer.body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + answer.body
