"""Servers that an operator drains or resets: the command, the executors, and the events."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from time import time
from typing import Any

import pytest

from harness.audit.events import bus_of
from harness.clients.bus_operator import servers_of
from harness.engines.engine import installed
from harness.services.call_runner import admitted
from harness.upstreams.faulty_server import FaultyServer
from harness.waits import until, until_async
from toolbus_cli.commands.operate.status import faults_of
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import CallError, CallResult, decode_reply
from toolbus_common.errors import ServerDrainedError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG, EVENTS
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.settings import Settings
from toolbus_executor.main import build


class Installation:
    """An executor with one server, its operator, and a policy that publishes calls."""

    def __init__(self, settings: Settings, operator: Bus, policy: Bus) -> None:
        self.server = FaultyServer()
        self._settings = settings
        self._operator = operator
        self._policy = policy
        self._replies: dict[str, Any] = {}

    async def declare(self) -> None:
        """Start the server and configure it."""
        await self.server.start()
        declared = Configuration(servers={"s": Server(url=self.server.url, timeout=60)})
        config = await self._operator.bucket(CONFIG)
        await config.put("configuration", declared.model_dump_json().encode())
        await self._policy.subscribe("tb.reply.policy.o.*", self._receive)
        await self._policy.settled()

    async def row(self) -> dict[str, Any] | None:
        """Return the executor's row of the server, once it is connected."""
        rows = await servers_of(self._operator)
        return next((each for each in rows if each["state"] == "ready"), None)

    async def ready(self) -> dict[str, Any]:
        """Wait for the row of the connected server."""
        found: dict[str, Any] = await until_async(self.row, "a server that is ready")
        return found

    async def toolbus(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command, as an operator does."""
        state = ["--state-dir", str(self._settings.state_dir)]
        return await asyncio.to_thread(
            subprocess.run,
            [installed("toolbus"), *words, *state],
            env={**os.environ, "TOOLBUS_NATS_URL": self._settings.nats_url},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    async def begin(self, number: str, **more: Any) -> None:
        """Publish a call."""
        call = admitted("plain", call_id=number, reply_to=f"tb.reply.policy.o.{number}", **more)
        await self._policy.publish("tb.run.s", call.encode())

    async def end(self, number: str) -> Any:
        """Return the final reply of a call."""
        return await until(lambda: self._replies.get(number), "the call's end")

    async def call(self, number: str, **more: Any) -> Any:
        """Make a call and return its final reply."""
        await self.begin(number, **more)
        return await self.end(number)

    async def events(self) -> list[str]:
        """Return the operators' events of the server, in order."""
        store, found, sequence = self._operator.client.jetstream(), list[str](), 0
        last = (await store.stream_info(EVENTS)).state.last_seq
        while sequence < last:
            sequence += 1
            message = await store.get_msg(EVENTS, seq=sequence)
            for line in (message.data or b"").splitlines():
                name = str(message.subject).removeprefix("tb.event.").rpartition(".")[0]
                found += [name] * (name.startswith("server.") and "by" in json.loads(line))
        return found

    def _receive(self, payload: bytes, subject: str, _reply: str) -> None:
        self._replies[subject.rpartition(".")[2]] = decode_reply(payload)


@pytest.fixture
async def installation(settings: Settings, operator: Bus) -> AsyncIterator[Installation]:
    async with bus_of("policy", settings) as policy:
        installation = Installation(settings, operator, policy)
        await installation.declare()
        async with build(ProcessContext()).running():
            await installation.ready()
            yield installation
        await installation.server.close()


async def test_a_drained_server_finishes_its_calls_and_gets_no_new_ones(
    installation: Installation,
) -> None:
    server = installation.server
    server.trouble, server.only = "hung", 1
    await installation.begin("long", deadline=time() + 60)
    await until(lambda: server.call_count, "the call at the server")

    message = await installation.toolbus("servers", "drain", "s")
    assert message.stdout == "Drained s: no new calls; 1 still running.\n", message.stderr
    refused = await installation.call("new")
    assert isinstance(refused, CallError)
    assert isinstance(refused.error, ServerDrainedError)
    assert server.call_count == 1
    status = await installation.toolbus("status")
    assert "draining" in status.stdout

    server.released.set()
    assert isinstance(await installation.end("long"), CallResult), (
        "the running call is not affected"
    )

    message = await installation.toolbus("servers", "undrain", "s")
    assert message.stdout == "Resumed calls to s.\n", message.stderr
    assert isinstance(await installation.call("later"), CallResult)
    assert await installation.events() == ["server.drained", "server.undrained"]


async def test_a_server_is_drained_for_executors_that_start_later_too(
    installation: Installation,
) -> None:
    await installation.toolbus("servers", "drain", "s")
    async with build(ProcessContext()).running():
        refused = [await installation.call(f"c{number}") for number in range(8)]
        assert {type(each.error) for each in refused} == {ServerDrainedError}
    assert installation.server.call_count == 0


async def test_requests_of_a_running_task_are_allowed(installation: Installation) -> None:
    await installation.toolbus("servers", "drain", "s")
    result = await installation.call("t", method="tasks/get", arguments={"taskId": "x"})
    assert not isinstance(getattr(result, "error", None), ServerDrainedError)


async def test_a_reset_closes_the_breaker_and_reconnects_the_server(
    installation: Installation,
) -> None:
    installation.server.trouble = "failing"
    for number in range(5):
        await installation.call(f"c{number}")
    row = await installation.ready()
    assert row["breaker"] == "open"
    assert next(faults_of(row)).startswith("Recent calls failed: upstream_dead ")
    installation.server.trouble = ""

    connections = installation.server.met
    message = await installation.toolbus("servers", "reset", "s")
    assert message.stdout.startswith("Resetting s"), message.stderr
    row = await installation.ready()
    assert (row["breaker"], row["failures"], row["resets"]) == ("closed", [], 1)
    assert installation.server.met > connections
    assert isinstance(await installation.call("after"), CallResult)
    assert await installation.events() == ["server.reset"]


async def test_draining_an_unknown_server_is_an_error(installation: Installation) -> None:
    message = await installation.toolbus("servers", "drain", "other")
    assert message.returncode != 0
    assert "toolbus get servers" in message.stderr
