"""Where the HTTP client connects, what it sends, and how many exchanges it has at once."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from harness.network.hostile_http import AT_LOOPBACK, BOUND, HEAD, OK, client, got, peer
from harness.network.tcp_servers import served
from harness.oauth.certificates import Authority
from toolbus_common.egress import Egress, Target
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError, HttpRequest
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.egress.tls import Tls

# -- where it connects -----------------------------------------------------------------------


async def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    meanings = [["127.0.0.1"], ["10.0.0.1"], ["127.0.0.3"]]
    lookups: list[str] = []

    def rebinding(target: Target) -> list[str]:
        lookups.append(target.host)
        return meanings.pop(0)

    async with peer() as (found, url):
        rebound = HttpClient(CheckedResolver(AT_LOOPBACK, lookup=rebinding))
        response = await rebound.send(HttpRequest("GET", url))
        assert (response.status, response.body, lookups) == (200, b"ok", ["peer.example"])
        with pytest.raises(HttpError, match="TOOLBUS_EGRESS_ALLOW"):
            await rebound.send(HttpRequest("GET", url))
        assert len(found.heads) == 1
        assert b"\r\nHost: peer.example:" in found.heads[0]
        assert found.heads[0].startswith(b"GET /path?q=1 HTTP/1.1\r\n")


async def test_an_address_that_does_not_answer_is_followed_by_the_next() -> None:
    async with peer() as (_, url):
        response = await client("127.0.0.2", "127.0.0.1").send(HttpRequest("GET", url))
    assert response.accepted


async def test_one_address_that_is_not_allowed_forbids_all() -> None:
    async with peer() as (found, url):
        with pytest.raises(HttpError, match="a private address"):
            await client("127.0.0.1", "10.0.0.1").send(HttpRequest("GET", url))
        assert found.heads == []


async def test_the_operators_own_target_may_be_private() -> None:
    async with peer() as (_, url):
        local = url.replace("peer.example", "127.0.0.1")
        strict = client(egress=Egress())
        with pytest.raises(HttpError, match="a loopback address"):
            await strict.send(HttpRequest("GET", local))
        assert (await strict.send(HttpRequest("GET", local, operator_named=True))).accepted


async def test_public_addresses_need_tls_where_the_client_requires_it() -> None:
    def public(_target: Target) -> list[str]:
        return ["93.184.216.34"]

    careful = HttpClient(CheckedResolver(Egress(), tls_to_public=True, lookup=public))
    with pytest.raises(HttpError, match="use https"):
        await careful.send(HttpRequest("GET", "http://peer.example/", operator_named=True))


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("user:word@127.0.0.1:{}", "contains credentials"),
        ("[fe80::1%25lo]:{}", "without a zone"),
        ("[::1%lo]:{}", "without a zone"),
        ("2130706433:{}", "ambiguous"),
        ("127.0.0.1:{}@peer.example", "contains credentials"),
        ("127.0.0.1:{}\r\nX: 1", "cannot be read|not a name|not valid"),
    ],
)
async def test_a_url_that_can_be_read_in_two_ways_is_not_connected_to(
    host: str, reason: str
) -> None:
    async with peer() as (found, url):
        port = url.partition("example:")[2].partition("/")[0]
        with pytest.raises(HttpError, match=reason):
            await got(f"http://{host.format(port)}/")
        assert found.heads == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    async with peer() as (elsewhere, place):
        answer = b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n"
        async with peer(answer % (status, place.encode())) as (found, url):
            assert (await got(url)).status == status
        assert (len(found.heads), elsewhere.heads) == (1, [])


async def test_proxies_and_credentials_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine peer.example login canary password canary\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with peer() as (proxy, place), peer() as (found, url):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, place.replace("peer.example", "127.0.0.1"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert (await got(url)).accepted
        assert proxy.heads == []
        assert b"uthorization" not in found.heads[0]


# -- what it sends ---------------------------------------------------------------------------


async def test_a_request_cannot_be_split_by_its_headers_or_its_path() -> None:
    async with peer() as (found, url):
        for headers in ({"x": "1\r\nHost: evil"}, {"x\r\ny": "1"}, {"x": "\x00"}, {"x": "\u20ac"}):
            with pytest.raises(HttpError, match="request is not valid"):
                await client().send(HttpRequest("POST", url, b"", headers))
        for method in ("GET / HTTP/1.1\r\nX: 1\r\n\r\nGET", "GET /other"):
            with pytest.raises(HttpError, match="request is not valid"):
                await client().send(HttpRequest(method, url))
        with suppress(HttpError):
            await got(url.replace("path", "path HTTP/1.1\r\nX: 1\r\n\r\n"))
        assert not any(b"\r\nX: 1" in head or b"evil" in head for head in found.heads)


async def test_a_body_arrives_whole_and_with_its_length() -> None:
    received: list[bytes] = []

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        received.append(await reader.readexactly(length))
        writer.write(OK)
        await writer.drain()

    bodies = [b"", b"x", bytes(range(256)) * 4000]
    async with asyncio.timeout(BOUND), served(read) as port:
        for body in bodies:
            url = f"http://peer.example:{port}/"
            assert (await client().send(HttpRequest("POST", url, body))).accepted
    assert received == bodies


async def test_a_server_may_answer_before_it_has_read_the_body() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await reader.read()  # until the client is gone

    async with asyncio.timeout(BOUND), served(refuse) as port:
        url = f"http://peer.example:{port}/"
        assert (await client().send(HttpRequest("POST", url, b"x"))).status == 413


async def test_a_cookie_is_neither_stored_nor_sent() -> None:
    answer = HEAD + b"Set-Cookie: a=canary; Path=/\r\nContent-Length: 0\r\n\r\n"
    async with peer(answer) as (found, url):
        sender = client()
        for _ in range(2):
            await sender.send(HttpRequest("GET", url))
        assert not any(b"canary" in head for head in found.heads)
        assert sender._exchange is not None
        assert list(sender._exchange._client.cookies.jar) == []


async def test_neither_urls_nor_headers_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with peer(HEAD + b"X-Secret: canary\r\nContent-Length: 0\r\n\r\n") as (_, url):
        headers = {"authorization": "Bearer canary"}
        assert (await client().send(HttpRequest("GET", f"{url}&t=canary", b"", headers))).accepted
    assert "canary" not in caplog.text
    assert "peer.example" not in caplog.text


# -- limits on concurrency -------------------------------------------------------------------


async def test_requests_beyond_the_limit_are_rejected_and_one_host_does_not_use_it_up() -> None:
    answering = asyncio.Event()
    waiting = asyncio.Semaphore(0)

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        waiting.release()
        await answering.wait()
        writer.write(OK)
        await writer.drain()

    async with asyncio.timeout(BOUND), served(hold) as port, peer() as (_, other):
        sender = client(max_in_progress=3, max_per_host=1)
        held = [
            asyncio.create_task(sender.send(HttpRequest("GET", f"http://held.example:{port}/")))
            for _ in range(2)
        ]
        await waiting.acquire()
        assert (await sender.send(HttpRequest("GET", other))).accepted
        assert waiting.locked(), "the second request to the same host waits"
        third = asyncio.create_task(sender.send(HttpRequest("GET", f"http://h.example:{port}/")))
        await waiting.acquire()
        with pytest.raises(HttpError, match="too many requests"):
            await sender.send(HttpRequest("GET", other))
        answering.set()
        assert all(each.accepted for each in await asyncio.gather(*held, third))
        assert (await sender.send(HttpRequest("GET", other))).accepted


# -- TLS -------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def serving(authority: Authority, name: str) -> ssl.SSLContext:
    """Return the context of a server with a certificate for a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.vouched(name))
    return context


def pem_of(authority: Authority, name: str) -> str:
    """Return a client certificate and its key as PEM."""
    return "".join(Path(each).read_text() for each in authority.vouched(name))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_tls_is_verified_for_the_name_and_not_for_the_address(
    authority: Authority, run: Callable[..., None]
) -> None:
    async def check() -> None:
        trusting = client(tls=Tls(extra=authority.ca))
        async with peer(context=serving(authority, "peer.example")) as (_, url):
            assert (await trusting.send(HttpRequest("GET", url))).body == b"ok"
            with pytest.raises(HttpError, match="add its certificate authority"):
                await client().send(HttpRequest("GET", url))
        for another in ("other.example", "127.0.0.1"):
            async with peer(context=serving(authority, another)) as (found, url):
                with pytest.raises(HttpError, match="certificate is not trusted"):
                    await trusting.send(HttpRequest("GET", url))
                assert found.heads == []

    run(check())


async def test_a_client_certificate_is_sent_with_its_own_request_only(
    authority: Authority,
) -> None:
    context = serving(authority, "peer.example")
    context.load_verify_locations(authority.ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    pair = pem_of(authority, "client")
    sender = client(tls=Tls(extra=authority.ca))
    async with peer(context=context) as (found, url):
        for certificate in ("", pair, ""):
            await sender.send(HttpRequest("GET", url, certificate=certificate))
        assert [bool(each) for each in found.certificates] == [False, True, False]
        with pytest.raises(HttpError, match="needs an https URL"):
            await sender.send(HttpRequest("GET", url.replace("https", "http"), certificate=pair))


async def test_a_server_that_requires_a_certificate_has_ended_the_connection(
    authority: Authority,
) -> None:
    context = serving(authority, "peer.example")
    context.load_verify_locations(authority.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    async with peer(context=context) as (_, url):
        with pytest.raises(HttpError) as caught:
            await client(tls=Tls(extra=authority.ca)).send(HttpRequest("GET", url))
    assert caught.value.ended
    with pytest.raises(HttpError, match="unreachable") as caught:
        await client().send(HttpRequest("GET", "http://peer.example:9/"))
    assert not caught.value.ended
