"""NATS by TLS: private authority, client certificates, replaced files, no plain text."""

import asyncio
import json
import shutil
import subprocess
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness.engines.engine import Engine, installed, own_port
from harness.engines.nats_server import NatsServer
from harness.oauth.certificates import Authority
from harness.waits import until_async
from toolbus_cli.commands.operate.nats_cluster import SINGLE, ServerTls
from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.settings import Settings
from toolbus_common.tls_files import TlsFileError, TlsFiles

HOST = "localhost"
CLIENT = "client"
PREFIX = "TOOLBUS_NATS"


class SecureNats(NatsServer):
    """A server with TLS that requires a client certificate of `authority`."""

    def __init__(self, directory: Path, authority: Path) -> None:
        super().__init__(directory)
        configuration = json.loads(self._configuration.read_text())
        configuration |= {"tls": ServerTls(str(authority), verify=True).settings(SINGLE)}
        self._configuration.write_text(json.dumps(configuration))

    @property
    def url(self) -> str:
        """The client URL."""
        return f"tls://{HOST}:{self.port}"


def issue(directory: Path) -> Path:
    """Create an authority with certificates of a server and of a client."""
    directory.mkdir()
    authority = Authority(directory)
    for name, use in ((HOST, SINGLE), (CLIENT, CLIENT)):
        certificate, key = authority.vouched(name)
        if use != name:
            shutil.copy(certificate, directory / f"{use}.pem")
            shutil.copy(key, directory / f"{use}.key")
    return directory


def files_of(directory: Path, ca: Path | None = None) -> TlsFiles:
    """Return a client's files: its certificate, and the authority that it trusts."""
    paths = ((ca or directory) / "ca.pem", directory / "client.pem", directory / "client.key")
    return TlsFiles(PREFIX, *map(str, paths))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return issue(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return issue(tmp_path_factory.mktemp("tls") / "foreign")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Path) -> Iterator[SecureNats]:
    with SecureNats(tmp_path_factory.mktemp("nats"), authority).running() as running:
        yield running


@asynccontextmanager
async def joined(
    server: NatsServer, tls: TlsFiles | None, patience: float = 30.0
) -> AsyncIterator[Bus]:
    bus = Bus(OPERATOR, server.url, server.at.seed(OPERATOR), tls)
    await bus.open(patience)
    try:
        yield bus
    finally:
        await bus.close()


async def refusal(server: NatsServer, tls: TlsFiles | None) -> str:
    """Return why no connection is possible."""
    with pytest.raises(BusDownError) as error:
        async with joined(server, tls, patience=5.0):
            pass
    return error.value.reason


async def test_a_client_with_a_certificate_of_the_authority_connects(
    server: SecureNats, authority: Path
) -> None:
    async with joined(server, files_of(authority)) as bus:
        assert bus.connected


async def test_connections_that_are_not_mutually_trusted_are_refused(
    server: SecureNats, tmp_path: Path, authority: Path, foreign: Path
) -> None:
    only_ca = TlsFiles(PREFIX, str(authority / "ca.pem"))
    with NatsServer(tmp_path).running() as plain:
        anonymous, stranger, imposter, unencrypted = await asyncio.gather(
            refusal(server, only_ca),
            refusal(server, files_of(foreign, ca=authority)),
            refusal(server, files_of(authority, ca=foreign)),
            refusal(plain, files_of(authority)),
        )
    assert OPERATOR in anonymous
    assert OPERATOR in stranger
    assert "certificate" in imposter
    assert "requires no TLS" in unencrypted


async def test_replaced_files_apply_to_the_next_connection(
    tmp_path: Path,
) -> None:
    own, theirs = issue(tmp_path / "own"), tmp_path / "theirs"
    shutil.copytree(own, theirs)
    server = SecureNats(tmp_path / "nats", theirs)
    with server.running():
        tls = files_of(own)
        async with joined(server, tls) as bus:
            before = tls.context
            renewed = issue(tmp_path / "renewed")
            server.kill()
            for place in (own, theirs):
                shutil.copytree(renewed, place, dirs_exist_ok=True)
            server.start()
            await until_async(lambda: _is(bus), "a connection with the new certificates")
            assert tls.context is not before


async def _is(bus: Bus) -> bool:
    return bus.connected


class Generated(Engine):
    """A server with the configuration that `toolbus nats-config` writes."""

    def __init__(self, directory: Path, authority: Path) -> None:
        super().__init__(directory)
        self.monitor = own_port()
        options = {
            "--port": self.port,
            "--store-dir": directory / "store",
            "--tls-dir": authority,
            "--monitor": f"127.0.0.1:{self.monitor}",
        }
        words = [str(word) for option in options.items() for word in option]
        command = [installed("toolbus"), "nats-config", str(directory), *words]
        subprocess.run(
            [*command, "--client-certificates", "--system-account"], check=True, capture_output=True
        )

    def command(self) -> list[str]:
        return [installed("nats-server"), "--config", str(self.directory / "nats.conf")]


async def test_the_written_configuration_has_tls_monitoring_and_a_system_account(
    tmp_path: Path, authority: Path
) -> None:
    with Generated(tmp_path, authority).running() as server:
        address = f"tls://{HOST}:{server.port}"
        seeds = {user: (tmp_path / "nkeys" / f"{user}.seed") for user in ("system", OPERATOR)}
        for user, seed in seeds.items():
            bus = Bus(user, address, seed.read_text(), files_of(authority))
            await bus.open()
            if user == "system":
                assert b"jetstream" in await bus.request("$SYS.REQ.SERVER.PING", b"", 10.0)
            await bus.close()
        server.wait_for(server.monitor)


@pytest.mark.parametrize(
    ("setting", "contents"),
    [("nats_ca", "no certificate"), ("nats_ca", None), ("nats_cert", "x"), ("nats_cert", None)],
)
def test_an_unusable_file_is_named_with_its_setting(
    tmp_path: Path, authority: Path, setting: str, contents: str | None
) -> None:
    path = tmp_path / "broken.pem"
    if contents is not None:
        path.write_text(contents)
    chosen = {"nats_ca": "ca.pem", "nats_cert": "client.pem", "nats_key": "client.key"}
    files = {name: str(authority / file) for name, file in chosen.items()} | {setting: str(path)}
    with pytest.raises(TlsFileError, match=r"broken\.pem") as error:
        _ = Settings(**files).nats_tls  # type: ignore[arg-type]
    assert f"TOOLBUS_{setting.upper()}" in str(error.value)


@pytest.mark.parametrize("url", ["tls://a,nats://b", "nats://a, TLS://b", "tls://a,"])
def test_one_tls_url_requires_tls_of_all_servers(url: str) -> None:
    assert Settings(nats_url=url).nats_tls is not None


@pytest.mark.parametrize("password", ["secret", "secret/of-base64"])
async def test_an_error_of_the_connection_does_not_show_credentials(password: str) -> None:
    url = f"nats://user:{password}@127.0.0.1:{own_port()},nats://secret@localhost:{own_port()}"
    with pytest.raises(BusDownError) as error:
        await Bus(OPERATOR, url).open(patience=0.1)
    shown = "".join(traceback.format_exception(error.value))
    assert "127.0.0.1" in error.value.reason or "TOOLBUS_NATS_URL" in error.value.reason
    assert "secret" not in shown


def test_a_certificate_without_its_key_is_refused(authority: Path) -> None:
    with pytest.raises(TlsFileError, match="TOOLBUS_NATS_KEY is not set"):
        _ = Settings(nats_cert=str(authority / "client.pem")).nats_tls


def test_files_that_become_unusable_leave_the_earlier_ones_in_use(
    tmp_path: Path, authority: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(authority, own)
    tls = files_of(own)
    before = tls.context
    (own / "client.pem").write_text("half a certificate")
    assert tls.context is before
    shutil.copy(authority / "client.pem", own / "client.pem")
    assert tls.context is not before
