"""Plugins that crash, hang, answer garbage or flood, in processes of their own, under load."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from harness.engines.nats_server import NatsAt
from harness.guards.plugin_programs import seed_of
from harness.services.policy_replicas import BOSS, PolicyReplicas, declared
from toolbus_common.concurrency import end
from toolbus_common.config import Plugin
from toolbus_common.contracts import CallResult
from toolbus_common.errors import GuardFailedError

LOAD, CHECKED, AT_ONCE = 150, 40, 20  # calls of the others, calls with the plugin
PROGRAM = """
import asyncio, os, sys
from nats.aio.client import Client

async def main(url, seed, behaviour):
    client = Client()

    async def note(error): pass

    async def receive(message):
        if behaviour == "crash":
            os._exit(1)
        if behaviour == "garbage":
            await message.respond(b"[" * 500_000)
        if behaviour == "flood":
            for _ in range(100):
                for subject in (message.reply, "_INBOX.policy.x", "tb.event.call.allowed.acme"):
                    await client.publish(subject, b"x" * 1000)
                await client.flush()

    await client.connect(url, nkeys_seed_str=seed, error_cb=note)
    await client.subscribe("tb.hook.before_decision.probe", cb=receive)
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def hostile(nats_server: NatsAt, behaviour: str) -> AsyncIterator[None]:
    """Run the program, and start it again whenever it ends."""
    ready = asyncio.Event()
    command = [sys.executable, "-c", PROGRAM, nats_server.url, nats_server.seed(seed_of("probe"))]

    async def keep() -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                *map(str, command), behaviour, stdout=asyncio.subprocess.PIPE
            )
            try:
                assert process.stdout is not None
                await process.stdout.readline()
                ready.set()
                await process.wait()
            finally:
                with suppress(ProcessLookupError):
                    process.kill()

    keeping = asyncio.create_task(keep())
    try:
        await ready.wait()
        yield
    finally:
        await end(keeping)


@pytest.mark.parametrize("behaviour", ["crash", "hang", "garbage", "flood"])
async def test_a_hostile_plugin_hurts_no_call_outside_of_its_scope(
    policy: PolicyReplicas, nats_server: NatsAt, behaviour: str
) -> None:
    plugin = Plugin(
        hooks=("before_decision",), may=("refuse",), timeout=0.2, keys=("boss",), fail="closed"
    )
    places = asyncio.Semaphore(AT_ONCE)

    async def ordinary() -> bool:
        async with places:
            return isinstance(await policy.request(), CallResult)

    async def checked() -> bool:
        async with places:
            try:
                await policy.request("read", secret=BOSS)
            except GuardFailedError:
                return True
            return False

    async with hostile(nats_server, behaviour):
        made = declared(approve=[]).model_copy(update={"plugins": {"probe": plugin}})
        await policy.declare(made)
        found = await asyncio.gather(
            *(ordinary() for _ in range(LOAD)), *(checked() for _ in range(CHECKED))
        )
        assert found == [True] * (LOAD + CHECKED)
    assert {call.tool for call in policy.reached} == {"burn"}  # no call of the plugin's scope
    details = [each.status().details.get("plugin:probe", "") for each in policy.policies]
    assert any(each.startswith("ejected: ") for each in details)
