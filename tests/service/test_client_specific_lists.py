"""A server whose tools depend on its client: all of them are part of its first listing."""

import sys
from contextlib import AsyncExitStack

import pytest

from harness.builders.pinned_listings import executor, held, listed_names, offered
from harness.waits import until_async
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import CatalogEntry, Listing
from toolbus_common.mcp.client_classes import ALL, NONE
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CATALOGUE, CONFIG
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.settings import Settings
from toolbus_executor.catalog import first_listing
from toolbus_executor.main import build
from toolbus_executor.upstreams.sessions import list_comparison

SERVER = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "initialize":
        able = "sampling" in message["params"]["capabilities"]
    tool = {"name": "think" if able else "fallback", "inputSchema": {"type": "object"}}
    result = {
        "initialize": {"result": {"protocolVersion": "2025-06-18", "serverInfo": {},
                                  "capabilities": {"tools": {}}}},
        "tools/list": {"result": {"tools": [tool]}},
    }.get(message["method"], {"error": {"code": -32601, "message": "Method not found"}})
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **result}), flush=True)
"""


async def test_a_tool_found_by_a_late_comparison_is_not_quarantined(
    operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first listing does not wait for its comparison, as with a server that starts slowly.
    monkeypatch.setattr(list_comparison, "BEGIN_SECONDS", 0.0)
    monkeypatch.setattr(list_comparison, "MIN_SECONDS", 0.0)
    config = await operator.bucket(CONFIG)
    declared = Configuration(servers={"s": Server(command=(sys.executable, "-uc", SERVER))})
    await config.put("configuration", declared.model_dump_json().encode())
    catalogue = await operator.bucket(CATALOGUE)

    async def compared() -> Listing | None:
        entry = await catalogue.get("s")
        found = Listing.decode(entry.value) if entry is not None and entry.value else None
        return found if found is not None and found.depends is not None else None

    async with build(ProcessContext()).running():
        listing: Listing = await until_async(compared, "the lists of the classes of clients")
    assert {tool.name for tool in listing.tools} == {"think", "fallback"}
    assert not listing.quarantined


def only_for(client: str, entry: CatalogEntry) -> CatalogEntry:
    return entry.model_copy(update={"shown_to": (client,)})


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_late_comparison_of_client_classes_completes_the_first_listing_once(
    settings: Settings, *, restarted: bool
) -> None:
    able, fallback = only_for(ALL, offered("able")), only_for(NONE, offered("fallback"))
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(executor(settings))
        await first.lists(offered("one"), offered("able"), awaits_comparison=True)
        other = await stack.enter_async_context(executor(settings)) if restarted else first
        found = await other.lists(offered("one"), able, fallback, offered("new"))
        assert listed_names(found) == ["able", "fallback", "one"]
        assert held(found) == {"new": "not approved yet"}
        found = await other.lists(able, fallback, only_for(NONE, offered("later")))
        assert held(found) == {"later": "not approved yet"}


async def test_a_comparison_long_after_the_first_listing_approves_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_listing, "COMPLETION_SECONDS", 0.0)
    async with executor(settings) as first:
        await first.lists(offered("one"), awaits_comparison=True)
        found = await first.lists(offered("one"), only_for(NONE, offered("fallback")))
        assert held(found) == {"fallback": "not approved yet"}


async def test_a_comparison_adds_nothing_to_a_first_listing_that_is_not_trusted(
    settings: Settings,
) -> None:
    async with executor(settings, "each") as first:
        await first.lists(offered("one"), awaits_comparison=True)
    async with executor(settings) as first:
        found = await first.lists(offered("one"), only_for(NONE, offered("fallback")))
        assert sorted(held(found)) == ["fallback", "one"]
