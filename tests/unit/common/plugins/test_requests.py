"""The breaker of a plugin: what ejects it, and what does not."""

import json
from time import time
from typing import Any, cast

import pytest

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


class ScriptedBus:
    """A bus whose requests end as a test says."""

    def __init__(self) -> None:
        self.end: Exception | bytes = TimeoutError()
        self.requests: list[tuple[str, dict[str, Any]]] = []

    async def request(self, subject: str, payload: bytes, _seconds: float) -> bytes:
        """Return the answer."""
        self.requests.append((subject, json.loads(payload)))
        if isinstance(self.end, Exception):
            raise self.end
        return self.end


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
    "end", [TimeoutError(), LookupError(), b"garbage", b'{"verdict":"fail","reason":"x"}']
)
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


async def test_names_only_leave_toolbus_without_a_permission_to_see_more(
    bus: ScriptedBus, requests: PluginRequests
) -> None:
    bus.end = b"{}"
    await requests.ask("probe", requests.declared["probe"], POINT, call(), None)
    subject, request = bus.requests[0]
    assert subject == "tb.hook.before_decision.probe"
    assert (request["has_content"], request["content"]) == (False, None)
