"""All settings and fields that contain a URL, each with the attempt to reach it."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from pydantic import ValidationError

from harness.network.tcp_servers import TURNS, closed_after, served
from harness.samples.address_spellings import LISTED, Resolver
from harness.services.call_runner import CallRunner, admitted
from toolbus_audit.delivery.webhook_poster import WebhookPoster
from toolbus_audit.export.targets import target_for
from toolbus_audit.siem.base import SinkError
from toolbus_audit.siem.http_sink import HttpTransport
from toolbus_audit.siem.records import Record
from toolbus_audit.siem.syslog_sink import StreamTransport
from toolbus_common.config import Export, Server, Sink, Webhook
from toolbus_common.egress import Allowed, Egress, Target
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError
from toolbus_common.egress.resolver import CheckedResolver, resolved_here
from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_common.object_storage.errors import TargetError
from toolbus_common.secrets import Secrets, stores_of
from toolbus_executor.isolation.network.egress_proxy import EgressProxy
from toolbus_executor.isolation.network.socket_handover import hand_over
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.upstreams.a2a import A2aUpstream
from toolbus_executor.upstreams.a2a.handles import Handles
from toolbus_executor.upstreams.base import Upstream
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.graphql import GraphQLUpstream
from toolbus_executor.upstreams.grpc.upstream import GrpcUpstream
from toolbus_executor.upstreams.mcp.http import HttpUpstream
from toolbus_executor.upstreams.openapi.document_loader import fetch
from toolbus_executor.upstreams.openapi.upstream import OpenApiUpstream

PROBE_SECONDS = 60.0  # timeout of a failed run
JSON = b"application/json"
THREADS = ThreadPoolExecutor(2, "entrances")
NO_SECRETS = Secrets(stores_of({}))
EVENT = Record(1, "i", "call.denied", 1.0, b"{}")
NO_CALLER = cast("Caller", None)  # an API does not prompt its caller


class Listener:
    """A listener on loopback that counts connections, over IPv4 and, if available, IPv6."""

    def __init__(self) -> None:
        self.hits = 0
        self.port = 0
        self.leads_to = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Listener"]:
        """Listen until the context ends."""
        async with served(self._meet) as self.port, AsyncExitStack() as stack:
            with suppress(OSError):  # a machine without IPv6
                await stack.enter_async_context(served(self._meet, "::1", self.port))
            yield self

    @property
    def url(self) -> str:
        """The plain URL of the listener."""
        return f"http://127.0.0.1:{self.port}"

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hits += 1
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(self._answer(head.split(b" ")[1].decode("latin-1")))
        await writer.drain()

    def _answer(self, path: str) -> bytes:
        """Return a redirect to another address, in each of the possible forms."""
        if path == "/sse":
            body = f"event: endpoint\ndata: {_line(self.leads_to)}\n\n".encode()
            return _answered(b"200 OK", b"text/event-stream", body)
        if path == "/servers.json":
            return _answered(b"200 OK", JSON, described(self.leads_to))
        if path == "/ref.json":
            return _answered(b"200 OK", JSON, described("/", f"{self.leads_to}#/x"))
        if path == "/plain.json":
            return _answered(b"200 OK", JSON, described("/"))
        place = b"Location: %b\r\n" % _line(self.leads_to).encode("utf-8", "replace")
        return _answered(b"307 Temporary Redirect", JSON, b"{}", place)


def _line(text: str) -> str:
    return text.replace("\n", " ").replace("\r", " ")


def _answered(status: bytes, media: bytes, body: bytes, more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n%b\r\n"
    return head % (status, media, len(body), more) + body


def described(server: str, refers_to: str = "") -> bytes:
    """Return a document with one operation at a server."""
    schema = {"$ref": refers_to} if refers_to else {"type": "string"}
    fields = {
        "parameters": [{"name": "q", "in": "query", "schema": schema}],
        "operationId": "ping",
        "responses": {"200": {"description": "fine"}},
    }
    info = {"title": "T", "version": "1"}
    servers = [{"url": server}]
    document = {
        "openapi": "3.1.0",
        "info": info,
        "servers": servers,
        "paths": {"/p": {"get": fields}},
    }
    return json.dumps(document).encode()


@dataclass
class Tried:
    """An operator's egress settings, the URL under test, and the redirecting server."""

    egress: Egress
    leader: Listener
    directory: Path
    way: Dialer = field(init=False)

    def __post_init__(self) -> None:
        self.way = Dialer(self.egress, resolve=Resolver())

    async def mcp(self, url: str) -> None:
        """Connect to an MCP server over streamable HTTP."""
        await self._met(url, old=False)

    async def sse(self, url: str) -> None:
        """Connect to an MCP server over HTTP+SSE."""
        await self._met(url, old=True)

    async def document(self, url: str) -> None:
        """Fetch an API's document."""
        await fetch(url, {}, self.way)

    async def base_url(self, url: str) -> None:
        """Call an API at its declared base URL."""
        await self._called(Server(openapi=self._file(described("/")), base_url=url))

    async def servers(self, url: str) -> None:
        """Call an API at the server in a local document."""
        await self._called(Server(openapi=self._file(described(url))))

    async def proxy(self, url: str) -> None:
        """Use a proxy."""
        way = replace(self.way, proxy=url)
        await fetch("http://192.88.98.1/", {}, way)

    async def webhook(self, url: str) -> None:
        """Post to a webhook."""
        await self._posted(url)

    async def sink(self, url: str) -> None:
        """Post to a SIEM."""
        outlet = HttpTransport(
            Sink(url=url),
            self._client(),
            THREADS,
            NO_SECRETS,
            is_operator_named=lambda: False,
            host="tests",
        )
        await outlet.send([EVENT])

    async def syslog(self, url: str) -> None:
        """Send to a SIEM over syslog."""
        place = urlsplit(url)
        port = f":{place.port or 514}" if not place.netloc.endswith(f":{place.port}") else ""
        sink = Sink(url=f"syslog+tcp://{place.netloc}{port}")
        outlet = StreamTransport(
            sink, self._client(), is_operator_named=lambda: False, host="tests"
        )
        try:
            await outlet.send([EVENT])
        finally:
            await outlet.close()

    async def store(self, url: str) -> None:
        """Write a file to an object store."""
        keys = {"access_key": "a", "secret_key": "b"}
        export = Export(to="s3://events", endpoint=url.rstrip("/"), credentials=keys)
        await target_for(export, self._client(), NO_SECRETS, lambda: False).put("file", b"x")

    async def endpoint_event(self, url: str) -> None:
        """Follow the `endpoint` event of an HTTP+SSE server."""
        self.leader.leads_to = url
        await self._met(f"{self.leader.url}/sse", old=True)

    async def fetched_servers(self, url: str) -> None:
        """Call an API at the server in a fetched document."""
        self.leader.leads_to = url
        await self._called(Server(openapi=f"{self.leader.url}/servers.json"))

    async def reference(self, url: str) -> None:
        """Follow a `$ref` of a schema."""
        self.leader.leads_to = url
        await self._called(Server(openapi=f"{self.leader.url}/ref.json"))

    async def moved_document(self, url: str) -> None:
        """Follow the redirect of a document."""
        self.leader.leads_to = url
        await fetch(f"{self.leader.url}/moved", {}, self.way)

    async def moved_operation(self, url: str) -> None:
        """Follow the redirect of an API operation."""
        self.leader.leads_to = url
        await self._called(Server(openapi=f"{self.leader.url}/plain.json"))

    async def moved_server(self, url: str) -> None:
        """Follow the redirect of an MCP server."""
        self.leader.leads_to = url
        await self._met(f"{self.leader.url}/moved", old=False)

    async def moved_webhook(self, url: str) -> None:
        """Follow the redirect of a webhook."""
        self.leader.leads_to = url
        await self._posted(f"{self.leader.url}/moved")

    async def graphql(self, url: str) -> None:
        """Call a GraphQL API."""
        await _opened(GraphQLUpstream(Server(graphql=url), {}, CallRunner().news, self.way))

    async def a2a(self, url: str) -> None:
        """Read the card of an agent."""
        handles = Handles(lambda: [b"k" * 32], "s")
        server, news = Server(a2a=url), CallRunner().news
        await _opened(A2aUpstream(server, {}, news, self.way, handles))

    async def grpc(self, url: str) -> None:
        """Call a gRPC server. Its library opens connections itself."""
        place = urlsplit(url)
        server = Server(grpc=f"grpc://{place.netloc}")
        await _opened(GrpcUpstream(server, {}, CallRunner().news, self.way))

    async def tunnel(self, url: str) -> None:
        """Request a tunnel at the sandbox's egress proxy."""
        authority = url.partition("://")[2].partition("/")[0]
        await self._sent_to_gate(url, f"CONNECT {authority} HTTP/1.1\r\n\r\n")

    async def forward(self, url: str) -> None:
        """Request the forwarding of a request at the sandbox's egress proxy."""
        await self._sent_to_gate(url, f"GET {url} HTTP/1.1\r\n\r\n")

    # -- attempts ----------------------------------------------------------------------------

    async def _met(self, url: str, *, old: bool) -> None:
        await _opened(
            HttpUpstream(url, {}, CallRunner().news, self.way, protocol="sse" if old else "auto")
        )

    async def _called(self, server: Server) -> None:
        upstream = OpenApiUpstream(server, {}, {}, CallRunner().news, self.way)
        try:
            await upstream.open()
            listed = await upstream.list_page("tools/list", None)
            if listed["tools"]:  # otherwise the only operation was omitted
                await upstream.call(admitted("ping", {"q": "x"}), PROBE_SECONDS, NO_CALLER)
        finally:
            await upstream.close()

    async def _sent_to_gate(self, url: str, request: str) -> None:
        """Send a request to an egress proxy that allows all addresses and the requested name."""
        gate = EgressProxy("s", Allowed.of(f"0.0.0.0/0 ::/0 {_name_in(url)}"), self.way)
        with gate.handover() as hatch:
            place = urlsplit(hand_over(os.dup(hatch)))
        try:
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            async with closed_after(writer):
                writer.write(request.encode())
                status = await reader.readline()
                if status.split(b" ")[1:2] != [b"200"] and b" 307 " not in status:
                    raise UpstreamDeadError(status.decode())
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await reader.read()
        finally:
            await gate.close()

    async def _posted(self, url: str) -> None:
        hook = Webhook(url=url, secret="${env:HOOK}")
        await WebhookPoster(self._client(), lambda _: False).post(hook, b"{}", {})

    def _client(self) -> HttpClient:
        names = Resolver()

        def resolved(target: Target) -> list[str]:
            return names.meaning(target.host) or resolved_here(target)

        return HttpClient(CheckedResolver(self.egress, tls_to_public=True, lookup=resolved))

    def _file(self, text: bytes) -> str:
        path = self.directory / "openapi.json"
        path.write_bytes(text)
        return str(path)


async def _opened(upstream: Upstream) -> None:
    """Open and close an upstream."""
    try:
        await upstream.open()
    finally:
        await upstream.close()


def _name_in(url: str) -> str:
    """Return the host of a URL if it is a name that can be allowed."""
    try:
        host = str(urlsplit(url).hostname)
        Allowed.of(host)
    except ValueError:
        return ""
    return host


Entrance = Callable[[Tried, str], Awaitable[None]]
CALLED: dict[str, Entrance] = {
    each.__name__: each
    for each in (
        Tried.mcp, Tried.sse, Tried.document, Tried.base_url, Tried.servers, Tried.proxy,
        Tried.webhook, Tried.graphql, Tried.a2a, Tried.grpc, Tried.tunnel, Tried.forward,
        Tried.sink, Tried.syslog, Tried.store,
    )
}  # fmt: skip
LED_TO: dict[str, Entrance] = {
    each.__name__: each
    for each in (
        Tried.endpoint_event, Tried.fetched_servers, Tried.reference, Tried.moved_document,
        Tried.moved_operation, Tried.moved_server, Tried.moved_webhook,
    )
}  # fmt: skip


@dataclass
class Count:
    """The result of an entry point.

    It counts attempts, denied attempts, and attempts that reached the listener.
    """

    probes: int = 0
    refused: int = 0
    hits: int = 0
    through: list[str] = field(default_factory=list)


async def counted(entrance: Entrance, urls: Iterable[str], tried: Tried, seen: Listener) -> Count:
    """Try all URLs at an entry point."""
    count = Count()
    for url in urls:
        before = seen.hits
        count.probes += 1
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await entrance(tried, url)
        except (ToolbusError, HttpError, SinkError, TargetError, ValidationError, ValueError):
            count.refused += 1
        # by now, all accepted connections have reached their handler
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if seen.hits != before:
            count.through.append(url)
        count.hits += seen.hits - before
    return count


def lists(*more: str) -> Egress:
    """Return the egress settings of an operator who allows these addresses."""
    return Egress(Allowed.of(" ".join((LISTED, *more))))
