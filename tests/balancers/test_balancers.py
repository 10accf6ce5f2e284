"""Real load balancers with the configurations of the how-to page. `make balancers` runs this."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from harness.engines.engine import own_port
from harness.network.raw_connections import RawHttps, posting
from harness.oauth.certificates import Authority
from harness.packages.debian import HAPROXY, NGINX
from harness.services.http_application import MIB, PATIENT, ServedApplication, place
from harness.waits import until, until_async
from toolbus_common.http_server.acceptor import Handshake
from toolbus_common.http_server.limits import Limits
from toolbus_common.http_server.proxy_addresses import Proxies
from toolbus_common.http_server.server_certificate import ServerCertificate

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "tls-and-balancers.md"
NAME = "toolbus.example"
CLIENT = "127.0.0.5"  # the client's own address; balancers connect from 127.0.0.1
BALANCER = Proxies.of("127.0.0.1")
SPOOFED = ("X-Forwarded-For: 198.51.100.1", "Forwarded: for=198.51.100.1")


def sample(language: str, **values: str) -> str:
    """Return a sample of the page, with other values in place of those of the page."""
    match = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert match, language
    text = match[1]
    for shown, used in values.items():
        assert shown in text
        text = text.replace(shown, used)
    return text


class Client(RawHttps):
    """A client with an address of its own."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(port, context, name=NAME, source=CLIENT)


@asynccontextmanager
async def running(port: int, *words: str) -> AsyncIterator[None]:
    """Run a balancer until the context ends."""
    process = await asyncio.create_subprocess_exec(*words)

    async def accepts() -> bool:
        assert process.returncode is None, "the balancer has ended; see its output"
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    try:
        await until_async(accepts, "the balancer accepts connections")
        yield
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def behind_nginx(directory: Path) -> AsyncIterator[tuple[ServedApplication, int]]:
    certificate, key = Authority(directory).vouched(NAME)
    async with place(Limits(proxies=BALANCER)) as here:
        port = own_port()
        server = sample(
            "nginx",
            **{
                "10.0.0.11:8080": f"127.0.0.1:{here.listener.port}",
                "listen 443": f"listen 127.0.0.1:{port}",
                "/etc/nginx/tls.crt": certificate,
                "/etc/nginx/tls.key": key,
            },
        )
        paths = "".join(
            f"{name}_temp_path {directory}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        configuration = directory / "nginx.conf"
        configuration.write_text(
            f"daemon off; master_process off; pid {directory}/nginx.pid;\n"
            f"error_log stderr; events {{}}\nhttp {{ access_log off;\n{paths}{server}}}\n"
        )
        async with running(port, NGINX.path(), "-e", "stderr", "-c", str(configuration)):
            yield here, port


@asynccontextmanager
async def behind_haproxy(
    directory: Path, sends: str
) -> AsyncIterator[tuple[ServedApplication, int]]:
    files = ServerCertificate("TOOLBUS_TLS", *Authority(directory).vouched(NAME))
    async with (
        place(PATIENT, Handshake(files, BALANCER)) as here,
        place() as operations,
    ):
        port = own_port()
        text = sample(
            "haproxy",
            **{
                "10.0.0.11:8080": f"127.0.0.1:{here.listener.port}",
                "port 8081": f"port {operations.listener.port}",
                "bind :443": f"bind 127.0.0.1:{port}",
                "send-proxy-v2": sends,
            },
        )
        configuration = directory / "haproxy.cfg"
        configuration.write_text(text)
        async with running(port, HAPROXY.path(), "-db", "-f", str(configuration)):
            await until(lambda: len(operations.app.seen) > 0, "HAProxy has probed")
            yield here, port


Balanced = AbstractAsyncContextManager[tuple[ServedApplication, int]]
BALANCERS: dict[str, Callable[[Path], Balanced]] = {
    "nginx": behind_nginx,
    "HAProxy": partial(behind_haproxy, sends="send-proxy-v2"),
    "HAProxy, version 1": partial(behind_haproxy, sends="send-proxy"),
}


@pytest.mark.parametrize("name", BALANCERS)
async def test_a_balancer_passes_on_streams_and_addresses(name: str, tmp_path: Path) -> None:
    async with BALANCERS[name](tmp_path) as (here, port):
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        with await asyncio.to_thread(Client, port, context) as stream:
            stream.send(posting("/events", b"", *SPOOFED))
            first = await asyncio.to_thread(stream.until, b"data: 1\n\n")
            assert b"data: 2" not in first
            here.app.go.set()
            await asyncio.to_thread(stream.until, b"data: 2\n\n")
        with await asyncio.to_thread(Client, port, context) as connection:
            body = b"x" * MIB
            for _ in range(2):
                connection.send(posting("/", body, *SPOOFED))
                assert (await asyncio.to_thread(connection.answer)).body == body
        assert {scope["client"][0] for scope in here.app.seen} == {CLIENT}
        assert all(dict(scope["headers"])[b"host"] == b"127.0.0.1" for scope in here.app.seen)
