"""When an idle process is ended, what keeps it running, and which listing stays valid."""

import asyncio
from typing import Any

import pytest

from harness.services.call_runner import admitted
from toolbus_common.config import Server
from toolbus_common.contracts import CallResult, Listing, TaskCreated
from toolbus_executor.resilience.bulkhead import Bulkhead
from toolbus_executor.upstreams.sessions import idle_shutdown as idling
from toolbus_executor.upstreams.sessions.idle_shutdown import IdleShutdown, digest_of, is_current
from toolbus_executor.upstreams.subscriptions import Watched
from toolbus_executor.upstreams.suspended_calls import SuspendedCalls

PROCESS = Server(command=("cat",), idle=60)


class Clock:
    """A clock set by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(idling, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class RunningServer:
    """A server with everything that may keep it running."""

    def __init__(self, declared: Server = PROCESS) -> None:
        self.bulkhead = Bulkhead("s", 4)
        self.park = SuspendedCalls("i")
        self.watched = Watched(lambda: None)
        self.idling = IdleShutdown(declared, self.bulkhead, self.park, (self.watched,))
        self.idling.settle()


async def test_an_unused_server_stops_soon_and_a_used_one_after_its_idle_time(
    clock: Clock,
) -> None:
    kept = RunningServer()
    clock.now += idling.LISTED_SECONDS - 1
    assert not kept.idling.falls_asleep()
    kept.idling.requested_at = clock.now
    clock.now += 59
    assert not kept.idling.falls_asleep()
    clock.now += 2
    assert kept.idling.falls_asleep()
    assert kept.idling.asleep


async def test_other_kinds_and_processes_without_idle_time_never_stop(clock: Clock) -> None:
    for declared in (Server(url="https://a.example"), Server(command=("cat",), idle=0)):
        kept = RunningServer(declared)
        clock.now += 1e6
        assert not kept.idling.falls_asleep()


async def test_calls_and_subscriptions_keep_a_server_running(clock: Clock) -> None:
    kept = RunningServer()
    await kept.bulkhead.enter(1)
    clock.now += 1000
    assert not kept.idling.falls_asleep()
    kept.bulkhead.leave()
    clock.now += 59
    assert not kept.idling.falls_asleep(), "the idle time starts when the work ends"
    kept.watched.add("file:///a")
    clock.now += 1000
    assert not kept.idling.falls_asleep()
    kept.watched.close()
    clock.now += 61
    assert kept.idling.falls_asleep()


@pytest.mark.parametrize(
    ("created", "method", "reply"),
    [
        (b'{"resultType":"task","taskId":"t1"}', "tasks/get", b'{"status":"completed"}'),
        (b'{"task":{"taskId":"t1"}}', "tasks/result", b'{"content":[]}'),
        (b'{"task":{"taskId":"t1"}}', "tasks/cancel", b'{"status":"cancelled"}'),
    ],
)
async def test_a_task_keeps_its_server_running_until_it_ends(
    created: bytes, method: str, reply: bytes
) -> None:
    kept = RunningServer()
    kept.idling.note(admitted("begin"), TaskCreated(created))
    call = admitted("", {"taskId": "t1"}, method=method)
    kept.idling.note(admitted("", {"taskId": "t1"}, method="tasks/get"), _answer("working"))
    assert kept.idling.busy
    kept.idling.note(call, CallResult(reply))
    assert not kept.idling.busy


async def test_a_task_that_is_not_polled_expires(clock: Clock) -> None:
    kept = RunningServer()
    kept.idling.note(admitted("begin"), TaskCreated(b'{"task":{"taskId":"t1"}}'))
    clock.now += idling.TASK_SECONDS + 1
    assert not kept.idling.busy


async def test_a_call_that_starts_the_server_waits_until_it_runs_or_fails() -> None:
    kept = RunningServer()
    kept.idling.fall_asleep()
    with pytest.raises(TimeoutError):
        await kept.idling.wake(0.001)
    waiting = asyncio.create_task(kept.idling.wake(60))
    await kept.idling.until_wanted()
    assert kept.idling.asleep
    kept.idling.settle()
    await waiting
    assert not kept.idling.asleep
    await kept.idling.until_wanted()


def test_only_a_complete_listing_of_the_same_configuration_is_valid() -> None:
    def listing(**more: Any) -> Listing:
        reply = {"server": "s", "state": "ready", "declared": digest_of(PROCESS)}
        return Listing(**{**reply, **more})

    assert is_current(listing(), PROCESS)
    assert not is_current(None, PROCESS)
    assert not is_current(listing(state="stale"), PROCESS)
    assert not is_current(listing(failed={"prompts/list": "no"}), PROCESS)
    assert not is_current(listing(), PROCESS.model_copy(update={"timeout": 5}))
    assert digest_of(Server(url="https://a.example")) == ""


def _answer(status: str) -> CallResult:
    return CallResult(b'{"status":"%b"}' % status.encode())
