"""Python plugins in isolated processes, each with its own user of the bus."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from time import time
from typing import Any

import pytest

from harness.engines.nats_server import NatsAt
from harness.waits import until, until_async
from toolbus_common.config.plugins import Plugin
from toolbus_common.contracts import CheckedCall, HookReply
from toolbus_common.nats.connection import Bus
from toolbus_common.plugins.requests import PluginFaultError, PluginRequests
from toolbus_executor.plugins.python_processes import PythonPlugins
from toolbus_executor.settings import Settings

POINT = "before_decision"
SOURCE = """
import os, socket
from toolbus_common.plugins.python.api import change, hook
__version__ = "7"
@hook
def before_decision(call, settings):
    arguments = call.content["arguments"]
    if arguments.get("die"):
        os._exit(3)
    seen = {"pid": os.getpid(), "secret": os.path.exists(settings["secret"])}
    return change({"arguments": arguments | seen})
"""


class Probe:
    """Requests of policy to the plugin `probe`."""

    def __init__(self, bus: Bus, plugins: PythonPlugins, declared: dict[str, Plugin]) -> None:
        self.plugins = plugins
        self.declared = declared
        self._requests = PluginRequests(bus, lambda: declared)

    async def ask(self, **arguments: Any) -> HookReply:
        """Return the answer about a call. Raises `PluginFaultError`."""
        call = CheckedCall(
            call_id="c", customer="acme", key="k", server="docs", tool="burn", deadline=time() + 60
        )
        plugin = self.declared["probe"]
        return await self._requests.ask("probe", plugin, POINT, call, {"arguments": arguments})

    async def answers(self) -> dict[str, Any]:
        """Return the arguments that the plugin makes of none, once it answers."""

        async def answer() -> dict[str, Any]:
            try:
                return dict((await self.ask()).content["arguments"])
            except PluginFaultError:
                return {}

        return dict(await until_async(answer, "the plugin answers"))


@pytest.fixture
async def probe(
    settings: Settings,  # noqa: ARG001 - its environment is that of executor
    nats_server: NatsAt,
    tmp_path: Path,
) -> AsyncIterator[Probe]:
    """Run the plugin like executor."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "probing.py").write_text(SOURCE)
    own = Settings()
    secret = own.state_dir / "nkeys" / "policy.seed"
    declared = {
        "probe": Plugin.model_validate(
            {
                "python": "probing", "cwd": str(tmp_path / "code"), "hooks": [POINT],
                "sees": ["arguments"], "may": ["change"], "timeout": 30,
                "settings": {"secret": str(secret)},
            }
        )
    }  # fmt: skip
    assert secret.exists()
    bus = Bus("policy", nats_server.url, nats_server.seed("policy"))
    await bus.open()
    plugins = PythonPlugins(own, lambda: declared)
    await plugins.reconcile()
    yield Probe(bus, plugins, declared)
    await plugins.close()
    await bus.close()


async def test_a_plugin_answers_from_a_process_that_sees_no_secret_of_toolbus(probe: Probe) -> None:
    found = await probe.answers()
    assert found["pid"] != os.getpid()
    assert found["secret"] is False
    assert (await probe.ask()).version == "7"
    assert probe.plugins.status() == {}


async def test_a_plugin_that_dies_is_started_again_and_ends_with_its_declaration(
    probe: Probe,
) -> None:
    await probe.answers()
    with pytest.raises(PluginFaultError):
        await probe.ask(die=True)
    assert await probe.answers()
    probe.declared.clear()
    await probe.plugins.reconcile()
    assert probe.plugins.status() == {}


async def test_a_plugin_that_cannot_be_loaded_is_named_with_the_reason(probe: Probe) -> None:
    before = probe.declared["probe"]
    probe.declared["probe"] = before.model_copy(update={"python": "missing_module"})
    await probe.plugins.reconcile()
    await until(lambda: "start" not in probe.plugins.status().get("probe", "start"), "a reason")
    assert probe.plugins.status()["probe"]
