"""Operations listener of a process: /healthz, /readyz and /metrics for probes and Prometheus.

It is separate from the port for agents, because server names and volumes are only for operators. By
default it listens on loopback. It replies only to requests whose `Host` is an IP address,
`localhost` or a name that the operator configured, so that a web page cannot reach it by DNS
rebinding.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from ipaddress import ip_address
from typing import NamedTuple

from toolbus_common.errors import UnavailableError
from toolbus_common.listen_address import HostPort
from toolbus_common.observability.metrics import SERVICE_READY, exposition
from toolbus_common.service.service import Service

LONGEST_HEAD = 8192
SECONDS = 5.0  # timeout of a request, including its response
MAX_CONCURRENT = 64  # connections

_JSON = "application/json"
_REASONS = {200: "OK", 503: "Service Unavailable"}


class Response(NamedTuple):
    """An HTTP response."""

    status: int
    content_type: str
    body: bytes


def answer(path: str, services: Iterable[Service]) -> Response:
    """Return the response to a request for this path.

    The process is ready if all its services are ready.
    """
    if path == "/healthz":
        return Response(200, "", b"")
    if path == "/readyz":
        statuses = [service.status() for service in services]
        body = json.dumps(
            {status.service: status.reason or "ready" for status in statuses}, sort_keys=True
        )
        ready = all(status.ready for status in statuses)
        return Response(200 if ready else 503, _JSON, body.encode())
    if path == "/metrics":
        return Response(200, "text/plain; version=0.0.4; charset=utf-8", exposition())
    return _rejected(404, "Not found: this listener serves /healthz, /readyz and /metrics.")


def report_readiness(services: Iterable[Service]) -> None:
    """Make the readiness metric of each service follow its status."""
    for service in services:
        SERVICE_READY.labels(service.name).set_function(partial(_readiness, service))


def _readiness(service: Service) -> float:
    return float(service.is_ready)


def respond(head: bytes, services: Iterable[Service], names: frozenset[str]) -> Response:
    """Return the response to a request with this head.

    `names` are the accepted host names, in addition to IP addresses and localhost.
    """
    lines = head.split(b"\r\n")
    parts = lines[0].split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):  # noqa: PLR2004
        return _rejected(400, "Not an HTTP/1.1 request.")
    fields = [line.partition(b":") for line in lines[1:]]
    hosts = [value for name, _, value in fields if name.strip().lower() == b"host"]
    if len(hosts) != 1 or not _is_allowed_host(hosts[0].strip().decode("latin-1"), names):
        return _rejected(
            403,
            "This Host is not allowed: use an IP address, or add the name to TOOLBUS_OPS_HOSTS.",
        )
    if parts[0] not in (b"GET", b"HEAD"):
        return _rejected(405, "Method not allowed: use GET.")
    found = answer(parts[1].partition(b"?")[0].decode("latin-1"), services)
    return found._replace(body=b"") if parts[0] == b"HEAD" else found


@asynccontextmanager
async def serving(
    address: HostPort, services: Callable[[], Iterable[Service]], names: frozenset[str]
) -> AsyncIterator[HostPort]:
    """Serve until the context ends, and yield the bound address.

    Raises `UnavailableError` if the process cannot listen on the address.
    """
    connections = 0

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            if connections > MAX_CONCURRENT:
                return
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(SECONDS):
                    writer.write(_encoded(await _read_and_respond(reader, services(), names)))
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
            "set another address with --ops-listen or TOOLBUS_OPS_LISTEN; port 0 selects a free "
            "port."
        ) from error
    try:
        yield HostPort(address.host, int(server.sockets[0].getsockname()[1]))
    finally:
        server.close()


async def _read_and_respond(
    reader: asyncio.StreamReader, services: Iterable[Service], names: frozenset[str]
) -> Response:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return _rejected(431, f"The request head exceeds {LONGEST_HEAD} bytes.")
    return respond(head, services, names)


def _is_allowed_host(host: str, names: frozenset[str]) -> bool:
    """Return whether a Host header contains an IP address, localhost or an accepted name."""
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


def _rejected(status: int, message: str) -> Response:
    return Response(status, _JSON, json.dumps({"error": message}).encode())


def _encoded(answer: Response) -> bytes:
    kind = f"content-type: {answer.content_type}\r\n" if answer.content_type else ""
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Rejected')}\r\n"
        f"{kind}content-length: {len(answer.body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + answer.body
