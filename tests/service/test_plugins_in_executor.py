"""Plugins around a call of a real MCP server: before it is called, and about its result."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.engines.nats_server import NatsAt
from harness.guards.plugin_programs import Answer, PluginProgram, plugin_program, seed_of
from harness.services.call_runner import CallRunner
from harness.services.guarded import TOKEN, guards_of
from toolbus_common.config.plugins import Plugin
from toolbus_common.contracts import CallCompleted, CallFailed
from toolbus_common.errors import GuardBlockedError, GuardFailedError
from toolbus_common.nats.connection import Bus
from toolbus_common.plugins.checks import PluginChecks
from toolbus_common.plugins.requests import PluginRequests
from toolbus_common.settings import Settings
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream

SERVER = Path(__file__).parent.parent / "harness" / "upstreams" / "echo_server.py"
PLUGGED: dict[str, Any] = {"guards": ("plugin:probe", "g"), "run": "r1", "principal_id": "p1"}
REDACT = {"kind": "secrets", "on": ["results"], "action": "redact"}
SEES = {"sees": ["arguments", "result"], "hooks": ["before_upstream", "after_result"]}


class Plugged:
    """A call runner whose calls have the plugin `probe`."""

    def __init__(self, client: CallRunner, bus: Bus, program: PluginProgram) -> None:
        self.client = client
        self.program = program
        self._bus = bus

    def use(self, answer: Answer, guards: dict[str, Any] | None = None, **fields: Any) -> None:
        """Declare the plugin, and how it answers."""
        self.program.answer = answer
        declared = {"probe": Plugin.model_validate({**SEES, **fields})}
        checks = PluginChecks(PluginRequests(self._bus, lambda: declared))
        self.client.runner.guards = guards_of(
            self.client.events, plugins=checks, **(guards or {"g": REDACT})
        )

    @property
    def checks(self) -> list[tuple[str, str, str]]:
        """Guard, phase and verdict of the checks in the last event."""
        found = json.loads(self.client.outcome.guards)
        return [(each["guard"], each["phase"], each["verdict"]) for each in found]


@pytest.fixture
async def plugged(settings: Settings, nats_server: NatsAt) -> AsyncIterator[Plugged]:
    """Run the server, and the plugin."""
    bus = Bus("executor", settings.nats_url, nats_server.seed("executor"))
    await bus.open()
    client = CallRunner()
    await client.open(StdioUpstream([sys.executable, str(SERVER)], {}, "", client.news))
    seed = nats_server.seed(seed_of("probe"))
    async with plugin_program(nats_server.url, seed, lambda _: {}) as program:
        yield Plugged(client, bus, program)
    await client.close()
    await bus.close()


def only_at(point: str, answer: dict[str, Any]) -> Answer:
    """Return a plugin that gives this answer at one point, and passes at the others."""
    return lambda request: answer if request["point"] == point else {}


async def test_both_points_see_their_content_and_are_recorded_in_the_event(
    plugged: Plugged,
) -> None:
    plugged.use(lambda _: {"version": "2"})
    reply = await plugged.client.call("say", {"text": "hi"}, **PLUGGED)
    before, after = plugged.program.requests
    assert before["content"] == {"arguments": {"text": "hi"}}
    assert after["content"]["content"][0]["text"] == "hi"
    assert reply.frames
    assert isinstance(plugged.client.outcome, CallCompleted)
    assert plugged.checks == [
        ("plugin:probe", "before_upstream", "passed"),
        ("g", "results", "passed"),
        ("plugin:probe", "after_result", "passed"),
    ]


async def test_a_changed_result_is_checked_by_guards_and_reaches_the_caller(
    plugged: Plugged,
) -> None:
    changed = {"content": [{"type": "text", "text": f"token {TOKEN}"}]}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["point"] != "after_result":
            return {}
        return {"verdict": "change", "content": request["content"] | changed}

    plugged.use(answer, may=["change"])
    reply = await plugged.client.call("say", {"text": "hi"}, **PLUGGED)
    text = "\n".join(each.encode().decode() for each in reply.frames)
    assert "token [redacted:" in text
    assert TOKEN not in text
    assert ("plugin:probe", "after_result", "redacted") in plugged.checks


@pytest.mark.parametrize(("point", "sent"), [("before_upstream", False), ("after_result", True)])
async def test_a_refusal_says_whether_the_server_was_called(
    plugged: Plugged, point: str, *, sent: bool
) -> None:
    plugged.use(only_at(point, {"verdict": "refuse", "reason": "no"}), may=["refuse"])
    reply = await plugged.client.call("say", {"text": "hi"}, **PLUGGED)
    assert isinstance(reply.error, GuardBlockedError)
    outcome = plugged.client.outcome
    assert isinstance(outcome, CallFailed)
    assert outcome.sent is sent
    assert ("plugin:probe", point, "blocked") in plugged.checks


@pytest.mark.parametrize("fail", ["open", "closed"])
async def test_garbage_about_a_result_withholds_it_only_if_the_plugin_fails_closed(
    plugged: Plugged, fail: str
) -> None:
    plugged.use(lambda request: b"{" if request["point"] == "after_result" else {}, fail=fail)
    reply = await plugged.client.call("say", {"text": "hi"}, **PLUGGED)
    assert ("plugin:probe", "after_result", "failed") in plugged.checks
    if fail == "closed":
        assert isinstance(reply.error, GuardFailedError)
        return
    assert isinstance(plugged.client.outcome, CallCompleted)
    failures = [each for each in plugged.client.events.published if each.NAME == "guard.failed"]
    assert len(failures) == 1
