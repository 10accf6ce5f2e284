"""Plugins that receive copies of events from the audit's stream, on a real bus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from harness.audit.events import allowed, bus_of, events_of
from harness.engines.nats_server import NatsAt
from harness.guards.plugin_programs import Answer, PluginProgram, plugin_program, seed_of
from harness.services.sinks import PACE, stream_of
from harness.waits import until
from toolbus_audit.siem.plugin_feed import BATCH_BYTES, PluginFeeds
from toolbus_common.config import Plugin
from toolbus_common.nats.topology import EXPORTS
from toolbus_common.plugins.requests import PluginRequests
from toolbus_common.settings import Settings


@asynccontextmanager
async def feeding(
    settings: Settings, holder: str = "one", **plugins: dict[str, Any]
) -> AsyncIterator[PluginFeeds]:
    """Feed these plugins as audit does."""
    given = {"hooks": ["on_event"], "sees": ["event"], "timeout": "60s"}
    declared = {
        name: Plugin.model_validate({**given, **fields}) for name, fields in plugins.items()
    }
    async with bus_of("audit", settings) as bus:
        feeds = PluginFeeds(PluginRequests(bus, lambda: declared), holder, PACE)
        async with feeds.forwarding(await bus.bucket(EXPORTS), stream_of(bus)):
            yield feeds


@asynccontextmanager
async def running(nats_server: NatsAt, answer: Answer, name: str = "probe") -> AsyncIterator[Any]:
    """Run a plugin."""
    seed = nats_server.seed(seed_of(name))
    async with plugin_program(nats_server.url, seed, answer, name) as program:
        yield program


async def publish(settings: Settings, directory: Path, *numbers: int, **given: Any) -> None:
    """Publish an intent for each number."""
    async with events_of("policy", settings, directory) as policy:
        for number in numbers:
            await policy.publish_durable(allowed(call_id=f"c{number}", **given))


def received(program: PluginProgram) -> list[str]:
    """Return the calls of the received events, each once, in order."""
    found = [each["call_id"] for one in program.requests for each in one["content"]["events"]]
    return list(dict.fromkeys(found))


async def follow(settings: Settings, directory: Path, program: PluginProgram) -> None:
    """Publish until the plugin receives events: a new feed begins with the next one."""
    while not program.requests:
        await publish(settings, directory, 0)
        await asyncio.sleep(0.05)


async def test_a_plugin_receives_what_it_missed_in_order_in_batches(
    settings: Settings, tmp_path: Path, nats_server: NatsAt
) -> None:
    async with running(nats_server, lambda _: {}) as probe:
        async with feeding(settings, probe={}):
            await follow(settings, tmp_path, probe)
        await publish(settings, tmp_path, *range(1, 251))
        async with feeding(settings, probe={}):
            await until(lambda: len(received(probe)) == 251, "every event")
    assert received(probe) == [f"c{number}" for number in range(251)]
    assert max(len(each["content"]["events"]) for each in probe.requests) > 1
    assert probe.requests[0]["content"]["events"][0]["event"] == "call.allowed"
    assert {each["customer"] for each in probe.requests} == {""}


async def test_a_plugin_sees_only_names_and_only_its_customers(
    settings: Settings, tmp_path: Path, nats_server: NatsAt
) -> None:
    given = {"sees": [], "customers": ["acme"]}
    async with running(nats_server, lambda _: {}) as probe, feeding(settings, probe=given):
        await follow(settings, tmp_path, probe)
        await publish(settings, tmp_path, 1, customer="globex")
        await publish(settings, tmp_path, 2)
        await until(lambda: "c2" in received(probe), "the event of acme")
    events = [each for one in probe.requests for each in one["content"]["events"]]
    assert {each["customer"] for each in events} == {"acme"}
    assert {name for each in events for name in each} <= {
        "event", "id", "at", "customer", "call_id", "key", "server", "tool",
    }  # fmt: skip


async def test_a_plugin_that_fails_delays_no_other_and_misses_nothing(
    settings: Settings, tmp_path: Path, nats_server: NatsAt
) -> None:
    async with (
        running(nats_server, lambda _: {}) as probe,
        running(nats_server, lambda _: {}, "second") as second,
        feeding(settings, probe={}, second={}) as feeds,
    ):
        await follow(settings, tmp_path, probe)
        await until(lambda: bool(second.requests), "the second has begun")
        probe.answer = lambda _: b"garbage"
        await publish(settings, tmp_path, *range(1, 20))
        await until(lambda: "c19" in received(second), "the second has every event")
        await until(lambda: "plugin:probe" in feeds.details(), "its failure")
        assert "does not match the schema of answers" in feeds.details()["plugin:probe"]
        before = len(probe.requests)
        probe.answer = lambda _: {}
        await until(lambda: feeds.details() == {}, "it is asked again")
        later = probe.requests[before:]
    found = {each["call_id"] for one in later for each in one["content"]["events"]}
    assert "c19" in found


async def test_a_batch_has_a_limit_of_bytes(
    settings: Settings, tmp_path: Path, nats_server: NatsAt
) -> None:
    async with running(nats_server, lambda _: {}) as probe, feeding(settings, probe={}):
        await follow(settings, tmp_path, probe)
        long = "x" * (BATCH_BYTES // 2 - 4096)
        await publish(settings, tmp_path, *range(1, 5), arguments=long)
        await until(lambda: "c4" in received(probe), "every event")
    sizes = [len(str(each["content"])) for each in probe.requests]
    assert max(sizes) < BATCH_BYTES + 65536
