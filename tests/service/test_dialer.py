"""Connections to servers: to the checked address, with TLS for the name, or through a proxy."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from harness.audit.events import bus_of
from harness.network.tcp_servers import closed_after, served
from harness.oauth.certificates import Authority
from harness.waits import until_async
from toolbus_cli import config_client as desks
from toolbus_cli.state_dir import State
from toolbus_common.config import Configuration, Server
from toolbus_common.config_store.operator_targets import NAMED, decoded, digest_of
from toolbus_common.contracts import ServersQuery, ServersReply
from toolbus_common.egress import Allowed, Egress, Target
from toolbus_common.egress.policy import STRICT
from toolbus_common.egress.tls import Tls
from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG, CONFIGURATION
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.settings import Settings
from toolbus_executor.main import build
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.transport.dialer_factory import DialerFactory
from toolbus_executor.transport.http1 import NotSentError, Pool
from toolbus_executor.upstreams.openapi.document_loader import fetch

NAME = "docs.example"
LOOPBACK = Egress(Allowed.of("127.0.0.1"))


@dataclass
class Names:
    """A resolver that returns the given addresses, one for each look-up."""

    addresses: list[str] = field(default_factory=lambda: ["127.0.0.1"])
    lookups: int = 0

    async def __call__(self, target: Target) -> list[str]:
        self.lookups += 1
        if target.address is not None:
            return [str(target.address)]
        return [self.addresses[min(self.lookups, len(self.addresses)) - 1]]


@dataclass
class Peer:
    """A server, or a proxy, that records the request heads it received."""

    port: int = 0
    heads: list[str] = field(default_factory=list)
    # The names in the certificates it received.
    certificate_names: list[str] = field(default_factory=list)
    tunnels_to: int = 0

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        certificate_names = writer.get_extra_info("peercert")
        if certificate_names:
            self.certificate_names += [
                value for pair in certificate_names["subject"] for _, value in pair
            ]
        if head.startswith("CONNECT") and self.tunnels_to:
            writer.write(b"HTTP/1.1 200 Connection established\r\nVia: here\r\n\r\n")
            await self._tunnel(reader, writer)
        elif head.startswith("CONNECT"):
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine")
        await writer.drain()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", self.tunnels_to)
        async with closed_after(outer):
            await asyncio.gather(_pumped(reader, outer), _pumped(inner, writer))


async def _pumped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


@asynccontextmanager
async def peer(context: ssl.SSLContext | None = None, tunnels_to: int = 0) -> AsyncIterator[Peer]:
    peer = Peer(tunnels_to=tunnels_to)
    async with served(peer.meet, context=context) as peer.port:
        yield peer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls_context(authority: Authority) -> Callable[..., ssl.SSLContext]:
    """Return a server's side of TLS for a name; `asks` requires a client certificate."""

    def context_for(name: str = NAME, *, required: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*authority.vouched(name))
        if required:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(authority.ca)
        return context

    return context_for


def dialer(**changes: object) -> Dialer:
    return replace(Dialer(LOOPBACK, resolve=Names()), **changes)  # type: ignore[arg-type]


async def test_the_name_is_resolved_once_for_a_connection_and_sent_in_the_request() -> None:
    names = Names(["127.0.0.1", "127.0.0.2"])
    async with peer() as server:
        url = f"http://{NAME}:{server.port}/d"
        assert await fetch(url, {}, dialer(resolve=names)) == b"fine"
        assert names.lookups == 1
        with pytest.raises(UpstreamDeadError, match="TOOLBUS_EGRESS_ALLOW") as caught:
            await fetch(url, {}, dialer(resolve=names))
    assert caught.value.data["sent"] is False
    assert [head.split("\r\n")[0] for head in server.heads] == ["GET /d HTTP/1.1"]
    assert f"Host: {NAME}:{server.port}" in server.heads[0]


async def test_tls_is_verified_for_the_name_and_not_the_address(
    authority: Authority, tls_context: Callable[..., ssl.SSLContext]
) -> None:
    trusting = dialer(tls=Tls(ca=authority.ca))
    async with peer(tls_context()) as right, peer(tls_context("other.example")) as wrong:
        assert await fetch(f"https://{NAME}:{right.port}/", {}, trusting) == b"fine"
        also = dialer(tls=Tls(extra=authority.ca))
        assert await fetch(f"https://{NAME}:{right.port}/", {}, also) == b"fine"
        for url, by in ((wrong.port, trusting), (right.port, dialer())):
            with pytest.raises(UpstreamDeadError, match="certificate"):
                await fetch(f"https://{NAME}:{url}/", {}, by)
    assert wrong.heads == []
    assert len(right.heads) == 2


async def test_a_server_that_requires_a_certificate_receives_it(
    authority: Authority, tls_context: Callable[..., ssl.SSLContext]
) -> None:
    certificate, key = authority.vouched("toolbus")
    async with peer(tls_context(required=True)) as server:
        url = f"https://{NAME}:{server.port}/"
        certificate_names = dialer(tls=Tls(ca=authority.ca, certificate=certificate, key=key))
        assert await fetch(url, {}, certificate_names) == b"fine"
        with pytest.raises(ToolbusError):
            await fetch(url, {}, dialer(tls=Tls(ca=authority.ca)))
    assert server.certificate_names == ["toolbus"]


@pytest.mark.parametrize(
    "tls", [Tls(ca="nowhere.pem"), Tls(extra="nowhere.pem"), Tls(certificate="nowhere.pem")]
)
async def test_an_unreadable_file_is_reported_without_its_path(tls: Tls) -> None:
    async with peer() as server:
        pool = Pool(f"https://{NAME}:{server.port}/", dialer(tls=tls))
        with pytest.raises(
            NotSentError, match=r"can(not)? be (read|loaded)|not a readable"
        ) as caught:
            await pool.request(b"GET / HTTP/1.1\r\n\r\n")
    assert "nowhere" not in str(caught.value)


async def test_a_proxy_tunnels_https_and_sees_no_header_for_the_server(
    authority: Authority, tls_context: Callable[..., ssl.SSLContext]
) -> None:
    names = Names(["192.168.7.7"])
    async with peer(tls_context()) as server, peer(tunnels_to=server.port) as proxy:
        by = dialer(
            proxy=f"http://user:word@127.0.0.1:{proxy.port}",
            tls=Tls(ca=authority.ca),
            resolve=names,
        )
        assert await fetch(f"https://{NAME}/d", {"Authorization": "Bearer x"}, by) == b"fine"
    (result,) = proxy.heads
    assert result.startswith(f"CONNECT {NAME}:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n" in result
    assert "Bearer" not in result
    assert "Proxy-Authorization" not in server.heads[0]
    assert names.lookups == 1, "only the proxy's own address is resolved"


async def test_a_proxy_gets_the_full_address_of_plain_http() -> None:
    async with peer() as proxy:
        environ = {"http_proxy": f"http://user:word@127.0.0.1:{proxy.port}"}
        assert (
            await fetch(f"http://{NAME}/d?q", {}, dialer(egress=STRICT, environ=environ)) == b"fine"
        )
    (result,) = proxy.heads
    assert result.startswith(f"GET http://{NAME}:80/d?q HTTP/1.1\r\nProxy-Authorization: Basic ")
    assert f"Host: {NAME}\r\n" in result


async def test_a_rejected_tunnel_is_reported() -> None:
    async with peer() as proxy:
        by = dialer(proxy=f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(UpstreamDeadError, match="rejected the tunnel with HTTP 403"):
            await fetch(f"https://{NAME}/", {}, by)


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "0x7f.1", "[::ffff:10.0.0.1]"])
async def test_a_proxy_gets_no_request_for_a_forbidden_address(host: str) -> None:
    async with peer() as proxy:
        environ = {"http_proxy": f"http://127.0.0.1:{proxy.port}"}
        with pytest.raises(UpstreamDeadError):
            await fetch(f"http://{host}/", {}, dialer(environ=environ))
    assert proxy.heads == []


# -- confirmed targets -----------------------------------------------------------------------------


def test_files_are_used_only_where_the_operator_confirmed_them() -> None:
    dialers = DialerFactory()
    with pytest.raises(UpstreamDeadError, match="toolbus apply"):
        dialers.to(Server(url="https://a.example", ca="a.pem"), "")
    assert dialers.to(Server(url="https://a.example"), "").tls.ca == ""


async def test_a_private_address_is_reached_only_after_the_operators_confirmation(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOOLBUS_EGRESS_ALLOW")

    async with peer() as server:
        declared = Configuration(servers={"s": Server(url=f"http://127.0.0.1:{server.port}/mcp")})
        bucket = await operator.bucket(CONFIG)
        await bucket.put(CONFIGURATION, declared.model_dump_json().encode())
        async with build(ProcessContext()).running():

            async def why_not() -> str:
                try:
                    reply = await RequestReply("operator", operator).request(
                        ServersQuery(), ServersReply
                    )
                except ToolbusError:  # not there yet
                    return ""
                return str(reply.servers[0]["last_failure"]) if reply.servers else ""

            async def refused() -> bool:
                return "TOOLBUS_EGRESS_ALLOW" in await why_not()

            async def reached() -> bool:
                return bool(server.heads)

            await until_async(refused, "the rejection")
            assert server.heads == []
            async with desks.opened(operator, State(settings.state_dir)) as repository:
                await repository.apply(declared, "file")
            await until_async(reached, "the server")


async def test_confirmed_targets_follow_the_applied_configuration(
    settings: Settings, operator: Bus
) -> None:
    first, second = Server(url="http://127.0.0.1:1"), Server(url="http://127.0.0.1:2")
    bucket = await operator.bucket(CONFIG)

    async def known() -> frozenset[str]:
        entry = await bucket.get(NAMED)
        return decoded(entry.value) if entry else frozenset()

    async with desks.opened(operator, State(settings.state_dir)) as repository:
        await repository.apply(Configuration(servers={"a": first}), "file")
        assert await known() == {digest_of(first)}
        await repository.apply(
            Configuration(servers={"a": first, "b": second}), "import", named=Configuration()
        )
        assert await known() == {digest_of(first)}, "only targets the operator named"
        await repository.apply(Configuration(servers={"b": second}), "file")
        assert await known() == {digest_of(second)}


async def test_policy_cannot_confirm_targets(settings: Settings, operator: Bus) -> None:
    async with bus_of("policy", settings) as policy:
        # In order on one connection: the second entry exists, so the first was rejected.
        await policy.publish(f"$KV.{CONFIG}.{NAMED}", b"{}")
        await (await policy.bucket(CONFIG)).put("key.x", b"{}")
    assert await (await operator.bucket(CONFIG)).get(NAMED) is None
