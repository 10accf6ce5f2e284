"""Batches of events for a plugin, and its state in the status of the service."""

import json
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, cast

import pytest

from harness.guards.scripted_bus import ScriptedBus
from toolbus_audit.siem.base import SinkError
from toolbus_audit.siem.forwarder import ELSEWHERE, WAITING, State
from toolbus_audit.siem.plugin_feed import PluginTransport
from toolbus_audit.siem.records import Record
from toolbus_common.config import Plugin
from toolbus_common.nats.connection import Bus
from toolbus_common.plugins.requests import PluginRequests


@pytest.fixture
def bus() -> ScriptedBus:
    """Return a bus on which the plugin answers."""
    bus = ScriptedBus()
    bus.end = b"{}"
    return bus


@pytest.fixture
def threads() -> Iterator[Executor]:
    """Return a thread for conversions."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def transport(bus: ScriptedBus, threads: Executor) -> PluginTransport:
    """Return the requests to a plugin that sees events."""
    plugin = Plugin(hooks=("on_event",), sees=("event",))
    requests = PluginRequests(cast("Bus", bus), lambda: {"probe": plugin})
    return PluginTransport("probe", plugin, requests, threads)


def record(number: int, body: bytes = b"", **fields: Any) -> Record:
    """Return the record of an event."""
    found = body or json.dumps({"id": f"e{number}", "customer": "acme", **fields}).encode()
    return Record(number, f"e{number}", "call.allowed", 0.0, found)


def sent(bus: ScriptedBus) -> list[list[str]]:
    """Return the ids of the events of each request."""
    return [[each["id"] for each in one["content"]["events"]] for _, one in bus.requests]


async def test_an_event_that_cannot_be_sent_does_not_stop_the_others(
    bus: ScriptedBus, threads: Executor
) -> None:
    deep = record(3, b'{"id":"e3","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    large = record(2, arguments="x" * bus.max_bytes)
    given = [record(1), large, deep, record(4, b"garbage"), record(5)]
    rejected = await transport(bus, threads).send(given)
    assert sorted(each.id for each in rejected) == ["e2", "e3", "e4"]
    assert sent(bus) == [["e1"], ["e5"]]


async def test_a_batch_fits_into_a_message_of_the_bus(bus: ScriptedBus, threads: Executor) -> None:
    given = [record(number, arguments="x" * 900) for number in range(5)]
    assert await transport(bus, threads).send(given) == []
    assert sent(bus) == [["e0", "e1"], ["e2", "e3"], ["e4"]]


async def test_a_plugin_that_fails_receives_the_events_again(
    bus: ScriptedBus, threads: Executor
) -> None:
    bus.end = b'{"verdict": "fail", "reason": "full"}'
    with pytest.raises(SinkError, match="it failed: full"):
        await transport(bus, threads).send([record(1)])


@pytest.mark.parametrize(
    ("problem", "fault"), [("", ""), (WAITING, ""), (ELSEWHERE, ""), ("it failed", "it failed")]
)
def test_the_work_of_another_replica_is_not_a_fault(problem: str, fault: str) -> None:
    assert State(problem=problem).fault == fault
