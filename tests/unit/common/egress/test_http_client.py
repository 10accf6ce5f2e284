"""The HTTP client for control traffic, against servers that do not keep to the rules."""

import asyncio
import gzip
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from pathlib import Path
from threading import Event

import pytest
import uvloop

from harness.certificates import Authority
from harness.peers import served
from toolbus_common.egress import Allowed, Egress, Target
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError, HttpRequest, HttpResponse
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.egress.tls import SYSTEMS, Tls

BOUND = 60.0  # seconds; for a broken run
AT_LOOPBACK = Egress(Allowed.of("127.0.0.0/8"))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class Peer:
    """A server that sends given bytes, then others without end, and records what it read.

    With `drips` it sends single bytes without end, slowly, until its client closes the connection.
    """

    def __init__(self, answer: bytes = OK, *endless: bytes, drips: bool = False) -> None:
        self.answer = answer
        self.endless = endless
        self.drips = drips
        self.heads: list[bytes] = []
        self.certificates: list[bytes | None] = []
        self.closed = asyncio.Event()

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            secure = writer.get_extra_info("ssl_object")
            self.certificates.append(secure and secure.getpeercert(binary_form=True))
            writer.write(self.answer)
            for piece in cycle(self.endless):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            while self.drips and not reader.at_eof():
                writer.write(b"1")
                await writer.drain()
                await asyncio.sleep(0.01)
            await writer.drain()
        finally:
            self.closed.set()


@asynccontextmanager
async def peer(
    answer: bytes = OK,
    *endless: bytes,
    drips: bool = False,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[Peer, str]]:
    """A peer and its URL, at a name that only the lookup of these tests knows."""
    made = Peer(answer, *endless, drips=drips)
    async with asyncio.timeout(BOUND), served(made.meet, context=context) as port:
        yield made, f"{'https' if context else 'http'}://peer.example:{port}/path?q=1"


def client(
    *addresses: str,
    egress: Egress = AT_LOOPBACK,
    tls: Tls = SYSTEMS,
    most: int = 0,
    most_of_a_host: int = 16,
) -> HttpClient:
    """A client for which every name has these addresses."""
    found = list(addresses or ["127.0.0.1"])

    def lookup(_target: Target) -> list[str]:
        return found

    resolver = CheckedResolver(egress, lookup=lookup)
    return HttpClient(resolver, tls, most=most, most_of_a_host=most_of_a_host)


async def got(url: str, *, seconds: float = BOUND, cut: bool = False) -> HttpResponse:
    """The response to a request with limits that these tests can reach."""
    request = HttpRequest("GET", url, seconds=seconds, max_bytes=100_000, cut=cut)
    return await client().send(request)


# -- where it connects -----------------------------------------------------------------------


async def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    meanings = [["127.0.0.1"], ["10.0.0.1"], ["127.0.0.3"]]
    asked: list[str] = []

    def rebinding(target: Target) -> list[str]:
        asked.append(target.host)
        return meanings.pop(0)

    async with peer() as (found, url):
        rebound = HttpClient(CheckedResolver(AT_LOOPBACK, lookup=rebinding))
        response = await rebound.send(HttpRequest("GET", url))
        assert (response.status, response.body, asked) == (200, b"ok", ["peer.example"])
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


async def test_public_addresses_need_tls_where_that_is_asked_for() -> None:
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


async def test_neither_urls_nor_headers_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with peer(HEAD + b"X-Secret: canary\r\nContent-Length: 0\r\n\r\n") as (_, url):
        headers = {"authorization": "Bearer canary"}
        assert (await client().send(HttpRequest("GET", f"{url}&t=canary", b"", headers))).accepted
    assert "canary" not in caplog.text
    assert "peer.example" not in caplog.text


# -- what it accepts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (CHUNKED + b"2;x=y\r\nok\r\n0\r\nTrailer: 1\r\n\r\n", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK, b"ok"),
        (OK + b"HTTP/1.1 500 Another\r\nContent-Length: 3\r\n\r\nbad", b"ok"),
        (HEAD + b"Content-Length: 2\r\n\r\nok, and more than was announced", b"ok"),
    ],
    ids=["1.0 to the end", "1.0", "trailers", "interim", "a second response", "excess"],
)
async def test_a_response_ends_where_its_head_says(answer: bytes, body: bytes) -> None:
    async with peer(answer) as (_, url):
        assert (await got(url)).body == body


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"<html>HTTP/0.9</html>\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 OK 200\r\n\r\n", "not valid HTTP"),
        (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", "not valid HTTP"),
        (HEAD + b"Content-Length: -2\r\n\r\nok", "not valid HTTP"),
        (HEAD + b"Content-Length: 9\r\n\r\nless", "not valid HTTP"),
        (HEAD + b"no colon\r\n\r\n", "not valid HTTP"),
        (CHUNKED + b"fffffffffffffffffffffffff\r\nx", "not valid HTTP"),
        (CHUNKED + b"2\r\nok and no end of the chunk", "not valid HTTP"),
        (b"", "closed the connection without a response"),
        (HEAD + b"A: b\r\n" * 101 + b"\r\n", "more than 100 headers"),
        (HEAD + b"A: " + b"b" * 200_000 + b"\r\n\r\n", "headers of its response are too large"),
    ],
)
async def test_a_malformed_response_is_an_error(answer: bytes, reason: str) -> None:
    async with peer(answer) as (_, url):
        with pytest.raises(HttpError, match=reason):
            await got(url)


@pytest.mark.parametrize(
    ("beginning", "endless", "reason"),
    [
        (HEAD, b"X-More: and more\r\n", "headers of its response are too large"),
        (HEAD + b"\r\n", b"x" * 1000, "larger than 100000 bytes"),
        (CHUNKED, b"3e8\r\n%b\r\n" % (b"x" * 1000), "larger than 100000 bytes"),
        (CHUNKED, b"1;" + b"x" * 1000, "not valid HTTP|too large"),
        (CHUNKED + b"0\r\n", b"X-More: and more\r\n", "not valid HTTP|too large"),
    ],
    ids=["headers", "body", "chunks", "chunk extension", "trailers"],
)
async def test_a_response_without_end_is_cut_off(
    beginning: bytes, endless: bytes, reason: str
) -> None:
    async with peer(beginning, endless) as (found, url):
        with pytest.raises(HttpError, match=reason):
            await got(url)
        await found.closed.wait()


async def test_the_beginning_of_a_body_is_enough_where_that_is_asked_for() -> None:
    async with peer(CHUNKED, b"3e8\r\n%b\r\n" % (b"x" * 1000)) as (found, url):
        response = await got(url, cut=True)
        await found.closed.wait()
    assert (response.status, response.body) == (200, b"x" * 100_000)


async def test_a_compressed_body_is_not_decompressed() -> None:
    bomb = gzip.compress(bytes(20_000_000))
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    async with peer(head + bomb) as (found, url):
        assert (await got(url)).body == bomb
    assert b"\r\naccept-encoding: identity\r\n" in found.heads[0]


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        HEAD + b"X-Slow: ",
        HEAD + b"Content-Length: 99999\r\n\r\n",
        CHUNKED,
        CHUNKED + b"2\r\nok\r\n",
    ],
    ids=["status line", "header", "body", "size of the first chunk", "size of the next chunk"],
)
async def test_a_server_that_sends_single_bytes_is_not_waited_for(beginning: bytes) -> None:
    async with peer(beginning, drips=True) as (found, url):
        with pytest.raises(HttpError, match=r"did not respond within 0\.2 s|not valid HTTP"):
            await got(url, seconds=0.2)
        await found.closed.wait()


async def test_interim_responses_do_not_extend_the_time_limit() -> None:
    async with peer(b"", b"HTTP/1.1 100 Continue\r\n\r\n") as (found, url):
        with pytest.raises(HttpError, match=r"did not respond within 0\.2 s"):
            await got(url, seconds=0.2)
        await found.closed.wait()


async def test_a_connection_is_closed_when_its_tls_handshake_takes_too_long() -> None:
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client is gone
        ended.set()

    async with asyncio.timeout(BOUND), served(silent) as port:
        with pytest.raises(HttpError, match="did not respond within"):
            await got(f"https://peer.example:{port}/", seconds=0.5)
        await ended.wait()


async def test_a_lookup_that_takes_too_long_ends_its_request_and_delays_no_other_host() -> None:
    release, asked = Event(), list[str]()

    def slow(target: Target) -> list[str]:
        asked.append(target.host)
        if target.host == "slow.example":
            release.wait(BOUND)
        return ["127.0.0.1"]

    async with peer() as (_, url):
        resolver = CheckedResolver(AT_LOOPBACK, lookup=slow)
        sender = HttpClient(resolver)
        late = HttpRequest("GET", url.replace("peer", "slow"), seconds=0.2)
        results = await asyncio.gather(
            *(sender.send(late) for _ in range(40)), return_exceptions=True
        )
        assert {str(each) for each in results} == {"it did not respond within 0.2 s"}
        assert (await sender.send(HttpRequest("GET", url))).accepted
        assert asked == ["slow.example", "peer.example"]
        release.set()
        resolver.close()


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
        sender = client(most=3, most_of_a_host=1)
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
    """A context of a server with a certificate for a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.vouched(name))
    return context


def pem_of(authority: Authority, name: str) -> str:
    """A client certificate and its key."""
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
