"""How long what a server lists is believed: by its own word, and listed anew after it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from conformance.upstream import FixtureServer
from harness.waits import until, until_async
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import Listing, ServersQuery, ServersReply
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CATALOGUE, CONFIG
from toolbus_common.settings import Settings
from toolbus_executor.main import build
from toolbus_executor.servers import refresh_schedule as renewing


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[FixtureServer]:
    """A stateless server whose lists grow old within a moment."""
    with FixtureServer(
        tmp_path / "quick", "--family", "modern", "--ttl", "100"
    ).running() as server:
        yield server


@asynccontextmanager
async def kept(
    server: FixtureServer, settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """An executor that keeps the server."""
    monkeypatch.setenv("TOOLBUS_STATE_DIR", str(settings.state_dir))
    monkeypatch.setenv("TOOLBUS_NATS_URL", settings.nats_url)
    monkeypatch.setattr(renewing, "MIN_SECONDS", 0.1)
    declared = Configuration(servers={"quick": Server(url=server.url, probe=0)})
    config = await operator.bucket(CONFIG)
    await config.put("configuration", declared.model_dump_json().encode())
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(build(LocalTransport()).running())
        yield


async def shown(operator: Bus) -> Listing | None:
    """What is published of it."""
    entry = await (await operator.bucket(CATALOGUE)).get("quick")
    return Listing.decode(entry.value) if entry and entry.value else None


async def failed_lists(operator: Bus) -> dict[str, str]:
    """The lists that `toolbus status` tells as failing, and why."""
    reply = await RequestReply(OPERATOR, operator).request(ServersQuery(), ServersReply)
    (row,) = reply.servers
    failed: dict[str, str] = row["failed_lists"]
    return failed


async def test_lists_that_grew_old_are_listed_anew(
    quick: FixtureServer, settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(quick, settings, operator, monkeypatch):
        first: Listing = await until_async(lambda: shown(operator), "the first listing")
        assert first.ttl_ms == 100

        async def again() -> bool:
            later = await shown(operator)
            assert later is not None
            assert first.equals_ignoring_time(later), "nothing else has changed"
            return later.listed_at > first.listed_at

        await until_async(again, "a later listing")
    assert quick.seen()["methods"]["tools/list"] > 1
    assert quick.seen()["methods"]["server/discover"] == 1, "over the connection it had"


async def test_a_server_that_cannot_list_now_keeps_its_connection_and_what_it_listed(
    quick: FixtureServer,
    settings: Settings,
    operator: Bus,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with kept(quick, settings, operator, monkeypatch):
        first: Listing = await until_async(lambda: shown(operator), "the first listing")
        quick.kill()
        await until(lambda: caplog.text.count("server.refresh_failed") > 1, "renewals that fail")
        assert "cannot be reached" in (await failed_lists(operator))["tools/list"]
        before = await shown(operator)
        assert before is not None
        assert before.equals_ignoring_time(first), "it stays shown, and as ready"
        quick.start()

        async def again() -> bool:
            later = await shown(operator)
            return later is not None and later.listed_at > before.listed_at

        await until_async(again, "a later listing")

        async def mended() -> bool:
            return not await failed_lists(operator)

        await until_async(mended, "a status without the fault")
