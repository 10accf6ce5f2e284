"""The breaker of a plugin: what ejects it, and what does not."""

from time import time
from typing import cast

import pytest
from nats.errors import ConnectionClosedError

from harness.guards.scripted_bus import ScriptedBus
from toolbus_common.config.plugins import Plugin
from toolbus_common.contracts import CheckedCall
from toolbus_common.nats.connection import Bus
from toolbus_common.plugins.requests import (
    CONNECTING_SECONDS,
    PluginFaultError,
    PluginRequests,
    ejected,
)

POINT = "before_decision"


def call(seconds: float = 60.0) -> CheckedCall:
    """Return a call with this much time."""
    return CheckedCall(
        call_id="c", customer="acme", key="bot", server="docs", tool="burn",
        deadline=time() + seconds,
    )  # fmt: skip


async def fail(requests: PluginRequests, times: int, seconds: float = 60.0) -> str:
    """Ask about calls; return the last fault."""
    plugin, reason = requests.declared["probe"], ""
    for _ in range(times):
        with pytest.raises(PluginFaultError) as caught:
            await requests.ask("probe", plugin, POINT, call(seconds), {"arguments": {}})
        reason = str(caught.value)
    return reason


@pytest.fixture
def bus() -> ScriptedBus:
    """Return a bus without a program."""
    return ScriptedBus()


@pytest.fixture
def requests(bus: ScriptedBus) -> PluginRequests:
    """Return the requests to one plugin."""
    declared = {"probe": Plugin(hooks=(POINT,), timeout=30.0)}
    return PluginRequests(cast("Bus", bus), lambda: declared)


@pytest.mark.parametrize(
    "end",
    [
        TimeoutError(), LookupError(), ConnectionClosedError(), b"garbage",
        b'{"verdict":"fail","reason":"x"}',
    ],
)  # fmt: skip
async def test_five_failures_eject_a_plugin_which_is_then_left_out(
    bus: ScriptedBus, requests: PluginRequests, end: Exception | bytes
) -> None:
    bus.end = end
    reason = await fail(requests, 5)
    assert ejected(requests) == {"plugin:probe": f"ejected: {reason}"}
    assert await fail(requests, 3) == f"it is ejected, because {reason}"
    attempts = 1 + len(CONNECTING_SECONDS) if isinstance(end, LookupError) else 1
    assert len(bus.requests) == 5 * attempts


async def test_a_caller_with_too_little_time_does_not_eject_a_plugin_for_others(
    bus: ScriptedBus, requests: PluginRequests
) -> None:
    await fail(requests, 20, seconds=5.0)
    assert ejected(requests) == {}
    bus.end = b"{}"
    assert (
        await requests.ask("probe", requests.declared["probe"], POINT, call(), None)
    ).verdict == "pass"


async def test_a_silent_plugin_is_ejected_if_its_time_box_is_longer_than_the_callers_time(
    requests: PluginRequests,
) -> None:
    await fail(requests, 5, seconds=15.0)
    assert "plugin:probe" in ejected(requests)


async def test_names_only_leave_toolbus_without_a_permission_to_see_more(
    bus: ScriptedBus, requests: PluginRequests
) -> None:
    bus.end = b"{}"
    await requests.ask("probe", requests.declared["probe"], POINT, call(), None)
    subject, request = bus.requests[0]
    assert subject == "tb.hook.before_decision.probe"
    assert (request["has_content"], request["content"]) == (False, None)


async def test_a_content_that_no_message_can_hold_is_not_the_plugins_fault(
    bus: ScriptedBus,
) -> None:
    declared = {"probe": Plugin(hooks=(POINT,), sees=("arguments",))}
    requests = PluginRequests(cast("Bus", bus), lambda: declared)
    for _ in range(10):
        with pytest.raises(PluginFaultError, match="larger than a message"):
            await requests.ask("probe", declared["probe"], POINT, call(), {"arguments": "x" * 5000})
    assert (bus.requests, ejected(requests)) == ([], {})


async def test_a_plugin_that_is_just_starting_has_a_deadline_of_its_own_at_each_attempt(
    bus: ScriptedBus,
) -> None:
    bus.absent, bus.end = 3, b"{}"
    plugin = Plugin(hooks=("on_definition",), timeout=0.001)
    requests = PluginRequests(cast("Bus", bus), lambda: {"probe": plugin})
    await requests.ask("probe", plugin, "on_definition", call(), None)
    deadlines = [request["deadline"] for _, request in bus.requests]
    assert len(set(deadlines)) == 4
