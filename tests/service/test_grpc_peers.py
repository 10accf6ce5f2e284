"""gRPC servers of another library, over TLS, and with failing health checks."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.apis.grpc_process import GrpcServer
from harness.oauth.certificates import Authority
from harness.services.call_runner import AT_LOOPBACK, CallRunner
from toolbus_common.config import Server
from toolbus_common.egress import Target
from toolbus_common.egress.tls import Tls
from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.upstreams.grpc.upstream import GrpcUpstream

NAME = "shop.example"


@pytest.fixture(scope="module")
def v1_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcServer]:
    """Run a server with reflection v1 only and a health service."""
    with GrpcServer(
        tmp_path_factory.mktemp("newest"), "harness.apis.grpclib_server"
    ).running() as server:
        yield server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_server(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GrpcServer]:
    """Run a TLS server that requires a client certificate of the authority."""
    words = (*authority.vouched(NAME), authority.ca)
    with GrpcServer(tmp_path_factory.mktemp("secure"), words=words).running() as server:
        yield server


@pytest.fixture
async def upstream(v1_server: GrpcServer) -> AsyncIterator[CallRunner]:
    client = CallRunner()
    await client.open(GrpcUpstream(Server(grpc=v1_server.address), {}, client.news, AT_LOOPBACK))
    try:
        yield client
    finally:
        await client.close()


async def probed(client: CallRunner) -> str:
    """Return the reason a probe failed, or an empty text."""
    assert isinstance(client.upstream, GrpcUpstream)
    try:
        await client.upstream.probe()
    except ToolbusError as error:
        return error.reason
    return ""


async def test_a_server_with_reflection_v1_only_is_called(
    upstream: CallRunner,
) -> None:
    assert {"Shop_Echo"} <= {each.name for each in upstream.listing.tools}
    result = await upstream.call("Shop_Echo", {"title": "Tehanu"})
    assert result.last["structuredContent"] == {"title": "Tehanu"}


async def test_a_server_that_reports_a_failing_health_check_is_unhealthy(
    upstream: CallRunner,
) -> None:
    assert await probed(upstream) == ""
    try:
        await upstream.call("Shop_Echo", {"title": "unwell"})
        assert "reports NOT_SERVING" in await probed(upstream)
    finally:
        await upstream.call("Shop_Echo", {"title": "well"})
    assert await probed(upstream) == ""


async def test_a_server_without_a_health_service_is_healthy_while_it_answers(
    tmp_path: Path,
) -> None:
    server, client = GrpcServer(tmp_path), CallRunner()
    server.start()
    try:
        await client.open(GrpcUpstream(Server(grpc=server.address), {}, client.news, AT_LOOPBACK))
        try:
            assert await probed(client) == ""
            await asyncio.to_thread(server.kill)
            assert "cannot be reached" in await probed(client)
        finally:
            await client.close()
    finally:
        server.kill()


def dialer(tls: Tls) -> Dialer:
    async def resolve(_target: Target) -> list[str]:
        return ["127.0.0.1"]

    return replace(AT_LOOPBACK, tls=tls, resolve=resolve)


async def opened(server: GrpcServer, tls: Tls, name: str = NAME) -> str:
    """Return the answer of a call, or the reason of the failed connection."""
    client = CallRunner()
    declared = Server(grpc=f"grpcs://{name}:{server.port}")
    upstream = GrpcUpstream(declared, {}, client.news, dialer(tls))
    try:
        await client.open(upstream)
        result = await client.call("Shop_Echo", {"title": "Tehanu"})
        return str(result.last["structuredContent"]["title"])
    except UpstreamDeadError as error:
        return error.reason
    finally:
        await upstream.close()


async def test_tls_sends_the_client_certificate_and_verifies_the_servers_name(
    tls_server: GrpcServer, authority: Authority
) -> None:
    certificate, key = authority.vouched("toolbus")
    tls = Tls(ca=authority.ca, certificate=certificate, key=key)
    assert await opened(tls_server, tls) == "Tehanu"
    extra = Tls(extra=authority.ca, certificate=certificate, key=key)
    assert await opened(tls_server, extra) == "Tehanu"
    for wrong in (Tls(ca=authority.ca), Tls(certificate=certificate, key=key)):
        assert "cannot be reached" in await opened(tls_server, wrong)
    assert "cannot be reached" in await opened(tls_server, tls, "other.example")


async def test_unusable_files_are_named_by_their_setting(
    tls_server: GrpcServer, authority: Authority, tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing.pem")
    certificate, _ = authority.vouched("toolbus")
    assert "its ca cannot be read" in await opened(tls_server, Tls(ca=missing))
    pair = Tls(ca=authority.ca, certificate=certificate, key=missing)
    assert "its certificate and key cannot be loaded" in await opened(tls_server, pair)
