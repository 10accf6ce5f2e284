"""Questions to plugins about keys: their scope, their time, and revocations."""

import json
from typing import Any, cast

import pytest

from harness.guards.scripted_bus import ScriptedBus
from toolbus_common.config import Configuration, Key, Plugin
from toolbus_common.config_store.diff import changes
from toolbus_common.config_store.key_questions import KeyChange, ask, key_changes, report
from toolbus_common.errors import ForbiddenError
from toolbus_common.nats.connection import Bus
from toolbus_common.plugins.requests import PluginRequests

REFUSE = json.dumps({"verdict": "refuse", "reason": "no"}).encode()
BOT = {"secret_hash": "0" * 64, "team": "ops"}
OPS: dict[str, Any] = {"customers": {"acme": {}}, "teams": {"ops": {"customer": "acme"}}}


@pytest.fixture
def bus() -> ScriptedBus:
    """Return a bus on which the plugin refuses everything."""
    bus = ScriptedBus()
    bus.end = REFUSE
    return bus


def probe(bus: ScriptedBus, **fields: Any) -> PluginRequests:
    """Return requests to the plugin `probe`."""
    given = {"hooks": ["on_key"], "may": ["refuse"], **fields}
    declared = {"probe": Plugin.model_validate(given)}
    return PluginRequests(cast("Bus", bus), lambda: declared)


def between(old: dict[str, Any], new: dict[str, Any]) -> list[KeyChange]:
    """Return the changes of keys between two configurations."""
    before, after = Configuration.model_validate(old), Configuration.model_validate(new)
    return key_changes(changes(before, after), before, after)


async def test_a_key_whose_team_is_declared_with_it_is_in_the_scope_of_its_customer(
    bus: ScriptedBus,
) -> None:
    made = between({}, {**OPS, "keys": {"bot": BOT}})
    with pytest.raises(ForbiddenError, match="refused this key: no"):
        await ask(probe(bus, customers=["acme"]), made, "admin:root")
    await ask(probe(bus, customers=["globex"]), made, "admin:root")
    assert len(bus.requests) == 1


async def test_a_key_that_is_deleted_with_its_team_belongs_to_its_last_customer() -> None:
    (gone,) = between({**OPS, "keys": {"bot": BOT}}, {})
    assert (gone.action, gone.customer) == ("revoked", "acme")


async def test_plugins_see_revocations_but_cannot_refuse_them(bus: ScriptedBus) -> None:
    key = Key.model_validate(BOT)
    ended = KeyChange("bot", key, key.model_copy(update={"revoked": True}), "acme")
    requests = probe(bus)
    await ask(requests, [ended], "admin:root")
    assert bus.requests == []
    await report(requests, [ended], "admin:root")
    assert [request["key"] for _, request in bus.requests] == ["bot"]


async def test_a_key_that_becomes_valid_again_can_be_refused(bus: ScriptedBus) -> None:
    key = Key.model_validate(BOT)
    again = KeyChange("bot", key.model_copy(update={"revoked": True}), key, "acme")
    with pytest.raises(ForbiddenError):
        await ask(probe(bus), [again], "admin:root")


async def test_without_a_plugin_for_keys_nothing_is_sent(bus: ScriptedBus) -> None:
    made = between({}, {**OPS, "keys": {"bot": BOT}})
    await ask(probe(bus, hooks=["on_login"]), made, "admin:root")
    assert bus.requests == []
