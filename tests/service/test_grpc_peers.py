"""Servers over gRPC of another library, over TLS, and unwell ones."""

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
def newest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcServer]:
    """One that reflects in v1 alone, and says how it is."""
    with GrpcServer(
        tmp_path_factory.mktemp("newest"), "harness.apis.grpclib_server"
    ).running() as made:
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secure(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcServer]:
    """One that speaks TLS, to whoever the authority vouches for."""
    words = (*authority.vouched(NAME), authority.ca)
    with GrpcServer(tmp_path_factory.mktemp("secure"), words=words).running() as made:
        yield made


@pytest.fixture
async def upstream(newest: GrpcServer) -> AsyncIterator[CallRunner]:
    made = CallRunner()
    await made.open(GrpcUpstream(Server(grpc=newest.address), {}, made.news, AT_LOOPBACK))
    try:
        yield made
    finally:
        await made.close()


async def probed(bench: CallRunner) -> str:
    """What is wrong with it by its own word; empty where nothing is."""
    assert isinstance(bench.upstream, GrpcUpstream)
    try:
        await bench.upstream.probe()
    except ToolbusError as error:
        return error.reason
    return ""


async def test_a_server_that_reflects_in_the_newest_revision_is_called(
    upstream: CallRunner,
) -> None:
    assert {"Shop_Echo"} <= {each.name for each in upstream.listing.tools}
    result = await upstream.call("Shop_Echo", {"title": "Tehanu"})
    assert result.last["structuredContent"] == {"title": "Tehanu"}


async def test_a_server_that_says_it_is_unwell_is_believed(upstream: CallRunner) -> None:
    assert await probed(upstream) == ""
    try:
        await upstream.call("Shop_Echo", {"title": "unwell"})
        assert "reports NOT_SERVING" in await probed(upstream)
    finally:
        await upstream.call("Shop_Echo", {"title": "well"})
    assert await probed(upstream) == ""


async def test_a_server_without_a_health_service_is_well_as_long_as_it_answers(
    tmp_path: Path,
) -> None:
    server, bench = GrpcServer(tmp_path), CallRunner()
    server.start()
    try:
        await bench.open(GrpcUpstream(Server(grpc=server.address), {}, bench.news, AT_LOOPBACK))
        try:
            assert await probed(bench) == ""
            await asyncio.to_thread(server.kill)
            assert "cannot be reached" in await probed(bench)
        finally:
            await bench.close()
    finally:
        server.kill()


def way(tls: Tls) -> Dialer:
    async def resolve(_target: Target) -> list[str]:
        return ["127.0.0.1"]

    return replace(AT_LOOPBACK, tls=tls, resolve=resolve)


async def opened(server: GrpcServer, tls: Tls, name: str = NAME) -> str:
    """Why it could not be called; else what it answered."""
    bench = CallRunner()
    declared = Server(grpc=f"grpcs://{name}:{server.port}")
    upstream = GrpcUpstream(declared, {}, bench.news, way(tls))
    try:
        await bench.open(upstream)
        result = await bench.call("Shop_Echo", {"title": "Tehanu"})
        return str(result.last["structuredContent"]["title"])
    except UpstreamDeadError as error:
        return error.reason
    finally:
        await upstream.close()


async def test_a_server_over_tls_is_shown_who_comes_and_verified_by_its_name(
    secure: GrpcServer, authority: Authority
) -> None:
    certificate, key = authority.vouched("toolbus")
    tls = Tls(ca=authority.ca, certificate=certificate, key=key)
    assert await opened(secure, tls) == "Tehanu"
    beside = Tls(extra=authority.ca, certificate=certificate, key=key)
    assert await opened(secure, beside) == "Tehanu"
    for wrong in (Tls(ca=authority.ca), Tls(certificate=certificate, key=key)):
        assert "cannot be reached" in await opened(secure, wrong)
    assert "cannot be reached" in await opened(secure, tls, "other.example")


async def test_files_of_no_use_are_named_by_their_setting(
    secure: GrpcServer, authority: Authority, tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing.pem")
    certificate, _ = authority.vouched("toolbus")
    assert "its ca cannot be read" in await opened(secure, Tls(ca=missing))
    pair = Tls(ca=authority.ca, certificate=certificate, key=missing)
    assert "its certificate and key cannot be loaded" in await opened(secure, pair)
