"""Questions to plugins about decisions outside of calls."""

from typing import cast

import pytest

from harness.guards.scripted_bus import ScriptedBus
from toolbus_common.config import Plugin
from toolbus_common.nats.connection import Bus
from toolbus_common.plugins.decisions import LONGEST_NAME, Decision, refusal_of
from toolbus_common.plugins.requests import PluginRequests


def probe(bus: ScriptedBus, plugin: Plugin) -> PluginRequests:
    """Return requests to a plugin."""
    return PluginRequests(cast("Bus", bus), lambda: {"probe": plugin})


async def test_a_long_name_does_not_leave_the_scope_of_a_plugin() -> None:
    bus = ScriptedBus()
    bus.end = b'{"verdict": "refuse", "reason": "no"}'
    plugin = Plugin(hooks=("on_definition",), may=("refuse",), tools=("docs__*_delete",))
    name = "x" * LONGEST_NAME + "_delete"
    decision = Decision("on_definition", "definition", "d", server="docs", tool=name)
    refusal = await refusal_of(probe(bus, plugin), decision, {})
    assert refusal == "The plugin 'probe' refused this definition: no"
    assert bus.requests[0][1]["tool"] == name[:LONGEST_NAME]


@pytest.mark.parametrize("fail", ["open", "closed"])
async def test_after_the_deadline_only_plugins_that_fail_open_let_pass(fail: str) -> None:
    plugin = Plugin.model_validate({"hooks": ["on_key"], "may": ["refuse"], "fail": fail})
    bus = ScriptedBus()
    requests = probe(bus, plugin)
    refusal = await refusal_of(requests, Decision("on_key", "key", "k"), {}, until=1.0)
    assert bool(refusal) == (fail == "closed")
    assert (bus.requests, requests.ejected()) == ([], {})
