"""One watch of a bucket for several services of a process."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from harness.waits import until
from toolbus_common.concurrency import end
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.observability.metrics import exposition
from toolbus_common.service.bucket_watch import BucketWatch
from toolbus_common.service.health import report_readiness
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings


class Received:
    """A projection that records the changes it received."""

    fault = ""

    def __init__(self) -> None:
        self.changes: list[Change | None] = []

    def apply_change(self, change: Change | None) -> None:
        self.changes.append(change)


class Source:
    """A bucket of two entries on one connection; it counts its readers."""

    connected = True
    read = 0

    async def watch(self) -> AsyncGenerator[Change | None, None]:
        self.read += 1
        yield Change("a", b"1", 1)
        yield Change("b", b"2", 7)
        yield None
        await asyncio.Event().wait()


def run(watch: BucketWatch, source: Source) -> asyncio.Task[None]:
    made = cast("Any", source)
    return asyncio.create_task(watch.run(made, made))


async def test_one_of_two_services_reads_and_the_other_takes_over_when_it_leaves() -> None:
    received, first, second = Received(), Source(), Source()
    watch = BucketWatch("b", received.apply_change)
    leaving, staying = run(watch, first), run(watch, second)
    await watch.caught_up.wait()
    assert (first.read, second.read, watch.revision) == (1, 0, 7)
    assert received.changes[-1] is None
    await end(leaving)
    await watch.caught_up.wait()
    assert (first.read, second.read) == (1, 1)
    assert len(received.changes) == 6
    await end(staying)


async def test_a_service_that_starts_after_all_have_left_waits_for_a_new_load() -> None:
    received, source = Received(), Source()
    watch = BucketWatch("b", received.apply_change)
    only = run(watch, source)
    await watch.caught_up.wait()
    await end(only)
    assert not watch.caught_up.is_set()


async def test_a_service_with_a_connection_takes_over_from_one_that_lost_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("toolbus_common.service.bucket_watch.LOST_SECONDS", 0.001)
    received, first, second = Received(), Source(), Source()
    watch = BucketWatch("b", received.apply_change)
    reading, waiting = run(watch, first), run(watch, second)
    await watch.caught_up.wait()
    first.connected = False
    await until(lambda: second.read == 1 and watch.caught_up.is_set(), "the second reads")
    assert watch.connected
    assert first.read == 1
    await end(reading, waiting)


async def test_a_watch_without_its_readers_connection_is_not_connected() -> None:
    watch, source = BucketWatch("b", Received().apply_change), Source()
    assert watch.connected
    reading = run(watch, source)
    await watch.caught_up.wait()
    source.connected = False
    assert not watch.connected
    await end(reading)
    assert watch.connected


def test_services_of_one_process_share_a_projection_and_others_do_not() -> None:
    together = ProcessContext()
    one, two, apart = (
        Service(name, Settings(), process)
        for name, process in (("ingress", together), ("policy", together), ("audit", None))
    )
    shared = one.share_projection("tb_config", Received)
    assert two.share_projection("tb_config", Received) is shared
    assert apart.share_projection("tb_config", Received) is not shared
    assert two.share_projection("tb_tokens", Received) is not shared
    assert isinstance(together.calls, LocalTransport)


def test_readiness_for_metrics_reads_no_details() -> None:
    service = Service("policy", Settings())
    service.details = dict[str, Any].popitem  # type: ignore[assignment] # fails if it is called
    report_readiness([service])
    assert 'toolbus_service_ready{service="policy"} 0.0' in exposition().decode()
