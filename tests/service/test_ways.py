"""How servers are reached: at the address that was checked, by TLS for the name, or by a proxy."""

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
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG, CONFIGURATION
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
    """A resolver for which every name stands for what is told, look-up by look-up."""

    told: list[str] = field(default_factory=lambda: ["127.0.0.1"])
    asked: int = 0

    async def __call__(self, target: Target) -> list[str]:
        self.asked += 1
        if target.address is not None:
            return [str(target.address)]
        return [self.told[min(self.asked, len(self.told)) - 1]]


@dataclass
class Peer:
    """A server, or a proxy, that keeps the heads it was sent."""

    port: int = 0
    heads: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)  # the names in the certificates it was shown
    tunnels_to: int = 0

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        shown = writer.get_extra_info("peercert")
        if shown:
            self.shown += [value for pair in shown["subject"] for _, value in pair]
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
    made = Peer(tunnels_to=tunnels_to)
    async with served(made.meet, context=context) as made.port:
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def secure(authority: Authority) -> Callable[..., ssl.SSLContext]:
    """A server's side of TLS, in a name; `asks` for the certificate of whoever comes."""

    def made(name: str = NAME, *, asks: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*authority.vouched(name))
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(authority.ca)
        return context

    return made


def way(**told: object) -> Dialer:
    return replace(Dialer(LOOPBACK, resolve=Names()), **told)  # type: ignore[arg-type]


async def test_the_name_is_looked_up_once_for_a_connection_and_kept_in_the_request() -> None:
    names = Names(["127.0.0.1", "127.0.0.2"])
    async with peer() as server:
        url = f"http://{NAME}:{server.port}/d"
        assert await fetch(url, {}, way(resolve=names)) == b"fine"
        assert names.asked == 1
        with pytest.raises(UpstreamDeadError, match="TOOLBUS_EGRESS_ALLOW") as caught:
            await fetch(url, {}, way(resolve=names))
    assert caught.value.data["sent"] is False
    assert [head.split("\r\n")[0] for head in server.heads] == ["GET /d HTTP/1.1"]
    assert f"Host: {NAME}:{server.port}" in server.heads[0]


async def test_tls_is_verified_for_the_name_and_not_the_address(
    authority: Authority, secure: Callable[..., ssl.SSLContext]
) -> None:
    trusting = way(tls=Tls(ca=authority.ca))
    async with peer(secure()) as right, peer(secure("other.example")) as wrong:
        assert await fetch(f"https://{NAME}:{right.port}/", {}, trusting) == b"fine"
        also = way(tls=Tls(extra=authority.ca))
        assert await fetch(f"https://{NAME}:{right.port}/", {}, also) == b"fine"
        for url, by in ((wrong.port, trusting), (right.port, way())):
            with pytest.raises(UpstreamDeadError, match="certificate"):
                await fetch(f"https://{NAME}:{url}/", {}, by)
    assert wrong.heads == []
    assert len(right.heads) == 2


async def test_a_server_that_asks_is_shown_the_certificate(
    authority: Authority, secure: Callable[..., ssl.SSLContext]
) -> None:
    certificate, key = authority.vouched("toolbus")
    async with peer(secure(asks=True)) as server:
        url = f"https://{NAME}:{server.port}/"
        shown = way(tls=Tls(ca=authority.ca, certificate=certificate, key=key))
        assert await fetch(url, {}, shown) == b"fine"
        with pytest.raises(ToolbusError):
            await fetch(url, {}, way(tls=Tls(ca=authority.ca)))
    assert server.shown == ["toolbus"]


@pytest.mark.parametrize(
    "tls", [Tls(ca="nowhere.pem"), Tls(extra="nowhere.pem"), Tls(certificate="nowhere.pem")]
)
async def test_a_file_that_cannot_be_read_is_told_of_without_its_path(tls: Tls) -> None:
    async with peer() as server:
        pool = Pool(f"https://{NAME}:{server.port}/", way(tls=tls))
        with pytest.raises(NotSentError, match=r"can(not)? be (read|loaded)|no readable") as caught:
            await pool.request(b"GET / HTTP/1.1\r\n\r\n")
    assert "nowhere" not in str(caught.value)


async def test_a_proxy_makes_a_tunnel_for_https_and_sees_no_header_of_the_server(
    authority: Authority, secure: Callable[..., ssl.SSLContext]
) -> None:
    names = Names(["192.168.7.7"])
    async with peer(secure()) as server, peer(tunnels_to=server.port) as proxy:
        by = way(
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
    assert names.asked == 1, "only the proxy's own address is looked up"


async def test_a_proxy_is_given_the_whole_address_of_what_is_not_https() -> None:
    async with peer() as proxy:
        environ = {"http_proxy": f"http://user:word@127.0.0.1:{proxy.port}"}
        assert await fetch(f"http://{NAME}/d?q", {}, way(egress=STRICT, environ=environ)) == b"fine"
    (result,) = proxy.heads
    assert result.startswith(f"GET http://{NAME}:80/d?q HTTP/1.1\r\nProxy-Authorization: Basic ")
    assert f"Host: {NAME}\r\n" in result


async def test_a_proxy_that_refuses_is_told_of() -> None:
    async with peer() as proxy:
        by = way(proxy=f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(UpstreamDeadError, match="rejected the tunnel with HTTP 403"):
            await fetch(f"https://{NAME}/", {}, by)


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "0x7f.1", "[::ffff:10.0.0.1]"])
async def test_no_proxy_is_sent_to_an_address_that_may_not_be_called(host: str) -> None:
    async with peer() as proxy:
        environ = {"http_proxy": f"http://127.0.0.1:{proxy.port}"}
        with pytest.raises(UpstreamDeadError):
            await fetch(f"http://{host}/", {}, way(environ=environ))
    assert proxy.heads == []


# -- who says so ---------------------------------------------------------------------------------


def test_files_count_only_where_the_operator_named_them() -> None:
    ways = DialerFactory()
    with pytest.raises(UpstreamDeadError, match="toolbus apply"):
        ways.to(Server(url="https://a.example", ca="a.pem"), "")
    assert ways.to(Server(url="https://a.example"), "").tls.ca == ""


async def test_an_operators_server_is_reached_and_nobody_elses(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLBUS_STATE_DIR", str(settings.state_dir))
    monkeypatch.setenv("TOOLBUS_NATS_URL", settings.nats_url)
    monkeypatch.delenv("TOOLBUS_EGRESS_ALLOW")

    async with peer() as server:
        declared = Configuration(servers={"s": Server(url=f"http://127.0.0.1:{server.port}/mcp")})
        bucket = await operator.bucket(CONFIG)
        await bucket.put(CONFIGURATION, declared.model_dump_json().encode())
        async with build(LocalTransport()).running():

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

            await until_async(refused, "its refusal")
            assert server.heads == []
            async with desks.opened(operator, State(settings.state_dir)) as repository:
                await repository.apply(declared, "file")
            await until_async(reached, "the server")


async def test_the_operators_word_follows_what_he_applies(
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
        assert await known() == {digest_of(first)}, "only what he named himself"
        await repository.apply(Configuration(servers={"b": second}), "file")
        assert await known() == {digest_of(second)}


async def test_policy_cannot_give_the_operators_word(settings: Settings, operator: Bus) -> None:
    async with bus_of("policy", settings) as policy:
        # In order on one connection: the second is there, so the first was refused.
        await policy.publish(f"$KV.{CONFIG}.{NAMED}", b"{}")
        await (await policy.bucket(CONFIG)).put("key.x", b"{}")
    assert await (await operator.bucket(CONFIG)).get(NAMED) is None
