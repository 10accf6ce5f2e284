"""Plugins at `on_definition`: silent plugins, and when definitions are checked again."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from harness.builders.pinned_listings import listing, offered
from harness.guards.scripted_bus import ScriptedBus
from toolbus_common.config import Configuration, Plugin, Server
from toolbus_common.nats.connection import Bus
from toolbus_common.plugins.checks import PluginChecks
from toolbus_common.plugins.requests import PluginRequests
from toolbus_executor.catalog import definition_guards
from toolbus_executor.catalog.definition_guards import DefinitionGuards, checks_of

GIVEN: dict[str, Any] = {"hooks": ["on_definition"], "may": ["refuse"]}


def guarded(
    bus: ScriptedBus, again: Callable[[], None] = lambda: None, **fields: Any
) -> DefinitionGuards:
    """Return the check of definitions by the plugin `probe`."""
    declared = {"probe": Plugin.model_validate({**GIVEN, **fields})}
    checks = PluginChecks(PluginRequests(cast("Bus", bus), lambda: declared))
    server = Server(url="http://127.0.0.1:1/mcp")
    return DefinitionGuards("docs", server, lambda: None, checks, again)


@pytest.mark.parametrize(("fail", "held"), [("open", 0), ("closed", 40)])
async def test_a_silent_plugin_does_not_use_up_the_time_of_the_connection(
    monkeypatch: pytest.MonkeyPatch, fail: str, held: int
) -> None:
    monkeypatch.setattr(definition_guards, "PLUGIN_SECONDS", -1.0)  # they are over
    bus = ScriptedBus()
    given = listing(*(offered(f"t{number}") for number in range(40)))
    found = await guarded(bus, fail=fail, timeout=60.0).checked(given)
    assert len([each for each in found.tools if each.held]) == held
    assert [each.name for each in found.tools] == [each.name for each in given.tools]
    assert bus.requests == []


async def test_definitions_are_checked_again_until_the_plugin_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(definition_guards, "AGAIN_SECONDS", 0.0)
    bus, due = ScriptedBus(), asyncio.Event()
    guards = guarded(bus, due.set)
    found = await guards.checked(listing(offered("a")))
    assert "could not be asked about this definition" in found.tools[0].held
    await due.wait()
    due.clear()
    bus.end = b"{}"
    found = await guards.checked(listing(offered("a")))
    assert found.tools[0].held == ""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not due.is_set()


async def test_a_refusal_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definition_guards, "AGAIN_SECONDS", 0.0)
    bus, due = ScriptedBus(), asyncio.Event()
    bus.end = b'{"verdict": "refuse", "reason": "no"}'
    found = await guarded(bus, due.set).checked(listing(offered("a")))
    assert found.tools[0].held == "The plugin 'probe' refused this definition: no"
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not due.is_set()


def test_servers_are_listed_again_if_only_a_plugin_for_definitions_changes() -> None:
    none = Configuration()
    declared = {name: Plugin.model_validate({**GIVEN, "hooks": [name]}) for name in (
        "on_definition", "on_key",
    )}  # fmt: skip
    on_key = none.model_copy(update={"plugins": {"probe": declared["on_key"]}})
    on_definition = none.model_copy(update={"plugins": {"probe": declared["on_definition"]}})
    assert checks_of(none) == checks_of(on_key)
    assert checks_of(none) != checks_of(on_definition)
