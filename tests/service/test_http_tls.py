"""Listener with TLS: replaced certificates, failed handshakes, and the ends of connections."""

import asyncio
import re
import shutil
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from prometheus_client import REGISTRY

from harness.network.raw_connections import CutError, RawHttp, RawHttps, posting
from harness.oauth.certificates import Authority
from harness.services.http_application import (
    BRIEF,
    GET,
    MIB,
    PATIENT,
    ServedApplication,
    closed,
    place,
    refused,
    within,
)
from harness.waits import until
from toolbus_common.http_server.acceptor import Handshake
from toolbus_common.http_server.limits import Limits
from toolbus_common.http_server.proxy_addresses import Proxies
from toolbus_common.http_server.server_certificate import ServerCertificate
from toolbus_common.tls_files import TlsFileError

NAME = "localhost"
LINE = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"
REFUSED = re.compile("version|reset|eof", re.IGNORECASE)
CLOSING = posting("/", b"x" * MIB, "Connection: close")


class Files:
    """The files of a listener, and the authority that issues its certificates."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.certificate, self.key = directory / "tls.crt", directory / "tls.key"
        self.issue()

    def issue(self, days: float = 30) -> None:
        """Replace certificate and key."""
        for issued, used in zip(
            self.authority.vouched(NAME, days), (self.certificate, self.key), strict=True
        ):
            self.replace(used, Path(issued).read_bytes())

    def replace(self, path: Path, content: bytes) -> None:
        new = path.with_suffix(".new")
        new.write_bytes(content)
        new.replace(path)

    def opened(self, client_ca: str = "") -> ServerCertificate:
        """Return the listener's certificate."""
        return ServerCertificate("TOOLBUS_TLS", str(self.certificate), str(self.key), client_ca)

    def client(self) -> ssl.SSLContext:
        """Return the settings of a client that trusts the authority."""
        return ssl.create_default_context(cafile=self.authority.ca)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Return a function that runs a test on one of the event loops."""
    return request.param  # type: ignore[no-any-return]


Run = Callable[[Coroutine[Any, Any, None]], None]


@asynccontextmanager
async def secure(
    files: Files, limits: Limits = PATIENT, client_ca: str = ""
) -> AsyncIterator[ServedApplication]:
    async with place(limits, Handshake(files.opened(client_ca))) as here:
        yield here


def exchange(here: ServedApplication, context: ssl.SSLContext, *requests: bytes) -> list[Any]:
    """Send requests on one connection; return the status of each response."""
    with RawHttps(here.listener.port, context) as connection:
        found = []
        for each in requests:
            connection.send(each)
            found.append(connection.answer().status)
        return found


async def serial(here: ServedApplication, context: ssl.SSLContext) -> str:
    """Return the serial number of the certificate of a new connection."""

    def connect() -> str:
        with RawHttps(here.listener.port, context) as connection:
            return connection.serial

    return await asyncio.to_thread(connect)


def test_requests_are_served_over_tls_only(files: Files, run: Run) -> None:
    async def scenario() -> None:
        async with secure(files) as here:
            body = posting("/", b"x" * MIB)
            found = await asyncio.to_thread(exchange, here, files.client(), GET, body, GET)
            assert found == [200, 200, 200]
            assert here.app.seen[0]["client"][0] == "127.0.0.1"
            before = closed("tls")
            with here.connect() as plain:
                plain.send(GET)
                assert await asyncio.to_thread(plain.ended)
            await until(lambda: closed("tls") == before + 1, "the failed handshake is counted")
            await until(lambda: not here.open, "all have left")

    run(scenario())


def test_an_earlier_version_than_tls_1_2_is_refused(files: Files) -> None:
    async def scenario() -> None:
        old = files.client()
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        old.set_ciphers("DEFAULT@SECLEVEL=0")
        async with secure(files) as here:
            before = closed("tls")
            with pytest.raises(OSError, match=REFUSED):
                await asyncio.to_thread(exchange, here, old, GET)
            await until(lambda: closed("tls") == before + 1, "the failed handshake is counted")

    with pytest.warns(DeprecationWarning, match="TLSv1"):
        asyncio.run(scenario())


def test_replaced_files_are_used_while_a_stream_stays_open(files: Files, run: Run) -> None:
    async def scenario() -> None:
        async with secure(files) as here:
            context = files.client()
            stream = await asyncio.to_thread(RawHttps, here.listener.port, context)
            with stream:
                stream.send(posting("/events", b""))
                await until(lambda: len(here.app.bodies) == 1, "the stream has started")
                earlier = stream.serial
                files.issue()
                assert await serial(here, context) != earlier
                assert await asyncio.to_thread(exchange, here, context, GET) == [200]
                here.app.go.set()
                answer = await asyncio.to_thread(stream.answer)
                assert answer.body == b"data: 1\n\ndata: 2\n\n"

    run(scenario())


BROKEN: dict[str, Callable[[Files], None]] = {
    "expired": lambda files: files.issue(days=-1),
    "no certificate": lambda files: files.replace(files.certificate, b"not PEM"),
    "another key": lambda files: files.replace(
        files.key, Path(files.authority.vouched("other")[1]).read_bytes()
    ),
    "missing": lambda files: files.key.unlink(),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_broken_files_leave_the_earlier_certificate_in_use(
    what: str, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = files.opened()
    async with place(PATIENT, Handshake(certificate)) as here:
        context = files.client()
        earlier = await serial(here, context)
        assert certificate.problem() == ""
        BROKEN[what](files)
        assert await serial(here, context) == earlier
        assert "tls.not_reloaded" in caplog.text
        assert "the replaced certificate is not in use: TOOLBUS_TLS_" in certificate.problem()
        assert metric(certificate, "toolbus_certificate_not_reloaded") == 1
        files.issue()
        assert await serial(here, context) != earlier
        assert certificate.problem() == ""
        assert metric(certificate, "toolbus_certificate_not_reloaded") == 0


def metric(certificate: ServerCertificate, name: str) -> float | None:
    certificate.check("agents")
    return REGISTRY.get_sample_value(name, {"listener": "agents"})


async def test_an_expired_certificate_is_named(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    files.issue(days=-1)
    certificate = files.opened()
    assert "tls.expired" in caplog.text
    assert "expired on" in certificate.problem()
    async with place(PATIENT, Handshake(certificate)) as here:
        before = closed("tls")
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            await asyncio.to_thread(exchange, here, files.client(), GET)
        await until(lambda: closed("tls") == before + 1, "the client's refusal is counted")
        files.issue(days=3)
        assert await asyncio.to_thread(exchange, here, files.client(), GET) == [200]
        assert "expires on" in certificate.problem()
    expires = metric(certificate, "toolbus_certificate_expiry_timestamp_seconds")
    assert expires == certificate.expires.timestamp()


def test_files_that_cannot_be_used_prevent_the_start(files: Files) -> None:
    files.replace(files.certificate, b"not PEM")
    with pytest.raises(TlsFileError, match=r"TOOLBUS_TLS_CERT: .* \(no PEM certificate\)"):
        files.opened()
    files.issue()
    with pytest.raises(TlsFileError, match=r"TOOLBUS_TLS_CLIENT_CA: .* cannot be used"):
        files.opened(client_ca=str(files.key))


def test_clients_need_a_certificate_of_the_configured_authority(
    files: Files, run: Run, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    other = Authority(foreign)

    async def scenario() -> None:
        async with secure(files, client_ca=files.authority.ca) as here:
            ours, theirs = files.client(), files.client()
            ours.load_cert_chain(*files.authority.vouched("agent"))
            theirs.load_cert_chain(*other.vouched("agent"))
            assert await asyncio.to_thread(exchange, here, ours, GET) == [200]
            for context in (files.client(), theirs):
                with pytest.raises((OSError, CutError)):
                    await asyncio.to_thread(exchange, here, context, GET)
            assert len(here.app.seen) == 1

    run(scenario())


def test_handshakes_are_limited_in_time_and_number(files: Files, run: Run) -> None:
    async def scenario() -> None:
        limits = Limits(connections=3, per_loopback=2, head_seconds=600)
        async with secure(files, limits) as here:
            totals, addresses = refused("total"), refused("address")
            with here.connect(), here.connect():
                with here.connect() as third:
                    assert await asyncio.to_thread(third.ended)
                assert (refused("total"), refused("address")) == (totals, addresses + 1)
        async with secure(files, within(head_seconds=BRIEF)) as here:
            before = closed("tls")
            with here.connect() as silent:
                silent.send(b"\x16\x03\x01")
                assert await asyncio.to_thread(silent.ended)
            assert closed("tls") == before + 1

    run(scenario())


def test_an_early_refusal_reaches_a_client_that_still_sends(files: Files, run: Run) -> None:
    async def scenario() -> None:
        async with secure(files) as here:

            def flood() -> int:
                with RawHttps(here.listener.port, files.client()) as connection:
                    connection.send(b"GET / HTTP/1.1\r\n")
                    for _ in range(64):
                        connection.send(b"X-Y: " + b"y" * 1000 + b"\r\n")
                    return connection.answer().status

            assert await asyncio.to_thread(flood) == 431

    run(scenario())


def test_a_response_before_the_end_is_complete_for_a_slow_client(files: Files, run: Run) -> None:
    async def scenario() -> None:
        async with secure(files) as here:

            def read() -> tuple[bytes, bytes]:
                with RawHttps(here.listener.port, files.client()) as connection:
                    connection.send(CLOSING)
                    pieces = []
                    while piece := connection.tls.recv(1000):
                        pieces.append(piece)
                    return b"".join(pieces).partition(b"\r\n\r\n")[::2]

            head, body = await asyncio.to_thread(read)
            assert head.startswith(b"HTTP/1.1 200")
            assert body == b"x" * MIB
            await until(lambda: not here.open, "the connection has ended")

    run(scenario())


def test_a_client_that_leaves_its_response_unread_is_disconnected(files: Files, run: Run) -> None:
    async def scenario() -> None:
        for path in ("/endless", "/"):
            async with secure(files, within(write_seconds=BRIEF)) as here:
                connection = await asyncio.to_thread(RawHttps, here.listener.port, files.client())
                with connection:
                    connection.send(posting(path, b"x" * 1000, "Connection: close"))
                    await until(lambda: len(here.app.bodies) == 1, "the request runs")
                    await until(lambda: not here.open, "the connection has ended")

    run(scenario())


def test_the_end_of_the_listener_completes_requests(files: Files, run: Run) -> None:
    async def scenario() -> None:
        async with secure(files) as here:
            connection = await asyncio.to_thread(RawHttps, here.listener.port, files.client())
            with connection:
                connection.send(posting("/held", b"{}"))
                await until(lambda: len(here.app.bodies) == 1, "the request runs")
                await here.listener.stop_accepting()
                with pytest.raises(ConnectionError):
                    RawHttp(here.listener.port)
                here.app.go.set()
                answer = await asyncio.to_thread(connection.answer)
                assert (answer.status, answer.body, answer.closes) == (200, b"{}", True)
                assert await asyncio.to_thread(connection.ended)
            await until(lambda: not here.open, "the connection has ended")

    run(scenario())


def test_a_proxy_header_precedes_the_handshake(files: Files, run: Run) -> None:
    async def scenario() -> None:
        handshake = Handshake(files.opened(), Proxies.of("127.0.0.1"))
        async with place(PATIENT, handshake) as here:

            def send(first: bytes) -> int:
                with RawHttps(here.listener.port, files.client(), first) as connection:
                    connection.send(GET)
                    return connection.answer().status

            assert await asyncio.to_thread(send, LINE) == 200
            assert here.app.seen[0]["client"] == ("203.0.113.7", 4711)
            with pytest.raises(OSError, match=REFUSED):
                await asyncio.to_thread(send, b"")

    run(scenario())


def test_a_certificate_in_a_changed_directory_is_used(files: Files, tmp_path: Path) -> None:
    """Kubernetes replaces the link of a directory, so that all files change at once."""
    for number in (1, 2):
        files.issue()
        kept = tmp_path / f"version-{number}"
        kept.mkdir()
        for each in (files.certificate, files.key):
            shutil.copy(each, kept)
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "version-1")
    certificate = ServerCertificate("TOOLBUS_TLS", str(link / "tls.crt"), str(link / "tls.key"))
    earlier = certificate.context
    (tmp_path / "next").symlink_to(tmp_path / "version-2")
    (tmp_path / "next").replace(link)
    assert certificate.context is not earlier
    assert certificate.problem() == ""
