"""Cache lifetime of a server's lists: given by the server, and refreshed after it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from conformance.upstream import FixtureServer
from harness.waits import until, until_async
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import Listing, ServersQuery, ServersReply
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CATALOGUE, CONFIG
from toolbus_common.service.process_context import ProcessContext
from toolbus_executor.main import build
from toolbus_executor.servers import refresh_schedule as renewing


@pytest.fixture
def expiring_server(tmp_path: Path) -> Iterator[FixtureServer]:
    """Run a stateless server whose lists expire within a moment."""
    with FixtureServer(
        tmp_path / "quick", "--family", "modern", "--ttl", "100"
    ).running() as server:
        yield server


@asynccontextmanager
async def running(
    server: FixtureServer, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """Run an executor with the server."""
    monkeypatch.setattr(renewing, "MIN_SECONDS", 0.1)
    declared = Configuration(servers={"quick": Server(url=server.url, probe=0)})
    config = await operator.bucket(CONFIG)
    await config.put("configuration", declared.model_dump_json().encode())
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(build(ProcessContext()).running())
        yield


async def published(operator: Bus) -> Listing | None:
    """Return the published listing."""
    entry = await (await operator.bucket(CATALOGUE)).get("quick")
    return Listing.decode(entry.value) if entry and entry.value else None


async def failed_lists(operator: Bus) -> dict[str, str]:
    """Return the failing lists and their reasons, as in `toolbus status`."""
    reply = await RequestReply(OPERATOR, operator).request(ServersQuery(), ServersReply)
    (row,) = reply.servers
    failed: dict[str, str] = row["failed_lists"]
    return failed


async def test_expired_lists_are_refreshed(
    expiring_server: FixtureServer,
    operator: Bus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(expiring_server, operator, monkeypatch):
        first: Listing = await until_async(lambda: published(operator), "the first listing")
        assert first.ttl_ms == 100

        async def again() -> bool:
            later = await published(operator)
            assert later is not None
            assert first.equals_ignoring_time(later), "nothing else has changed"
            return later.listed_at > first.listed_at

        await until_async(again, "a later listing")
    assert expiring_server.seen()["methods"]["tools/list"] > 1
    assert expiring_server.seen()["methods"]["server/discover"] == 1, "over the same connection"


async def test_a_server_whose_refresh_fails_stays_connected_and_listed(
    expiring_server: FixtureServer,
    operator: Bus,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(expiring_server, operator, monkeypatch):
        first: Listing = await until_async(lambda: published(operator), "the first listing")
        expiring_server.kill()
        await until(lambda: caplog.text.count("server.refresh_failed") > 1, "failed refreshes")
        assert "cannot be reached" in (await failed_lists(operator))["tools/list"]
        before = await published(operator)
        assert before is not None
        assert before.equals_ignoring_time(first), "it stays listed, and ready"
        expiring_server.start()

        async def again() -> bool:
            later = await published(operator)
            return later is not None and later.listed_at > before.listed_at

        await until_async(again, "a later listing")

        async def is_healthy() -> bool:
            return not await failed_lists(operator)

        await until_async(is_healthy, "a status without the failure")
