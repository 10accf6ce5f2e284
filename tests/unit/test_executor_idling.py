"""When a process may sleep: what keeps it awake, and what is still true of one that sleeps."""

import asyncio
from typing import Any

import pytest

from harness.bench import admitted
from toolbus_common.config import Server
from toolbus_common.contracts import CallResult, Listing, TaskCreated
from toolbus_executor.resilience.bulkhead import Bulkhead
from toolbus_executor.upstreams.sessions import idle_shutdown as idling
from toolbus_executor.upstreams.sessions.idle_shutdown import Idling, digest_of, still_true
from toolbus_executor.upstreams.subscriptions import Watched
from toolbus_executor.upstreams.suspended_calls import Park

PROCESS = Server(command=("cat",), idle=60)


class Clock:
    """A time that passes when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(idling, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Kept:
    """A server with what may keep it awake."""

    def __init__(self, declared: Server = PROCESS) -> None:
        self.bulkhead = Bulkhead("s", 4)
        self.park = Park("i")
        self.watched = Watched(lambda: None)
        self.idling = Idling(declared, self.bulkhead, self.park, (self.watched,))
        self.idling.settle()


async def test_one_that_was_never_called_sleeps_soon_and_another_after_its_time(
    clock: Clock,
) -> None:
    kept = Kept()
    clock.now += idling.LISTED_SECONDS - 1
    assert not kept.idling.falls_asleep()
    kept.idling.requested_at = clock.now
    clock.now += 59
    assert not kept.idling.falls_asleep()
    clock.now += 2
    assert kept.idling.falls_asleep()
    assert kept.idling.asleep


async def test_what_is_no_process_or_was_told_to_stay_never_sleeps(clock: Clock) -> None:
    for declared in (Server(url="https://a.example"), Server(command=("cat",), idle=0)):
        kept = Kept(declared)
        clock.now += 1e6
        assert not kept.idling.falls_asleep()


async def test_calls_and_subscriptions_keep_a_server_awake(clock: Clock) -> None:
    kept = Kept()
    await kept.bulkhead.enter(1)
    clock.now += 1000
    assert not kept.idling.falls_asleep()
    kept.bulkhead.leave()
    clock.now += 59
    assert not kept.idling.falls_asleep(), "its time begins when its work has ended"
    kept.watched.add("file:///a")
    clock.now += 1000
    assert not kept.idling.falls_asleep()
    kept.watched.close()
    clock.now += 61
    assert kept.idling.falls_asleep()


@pytest.mark.parametrize(
    ("begun", "method", "told"),
    [
        (b'{"resultType":"task","taskId":"t1"}', "tasks/get", b'{"status":"completed"}'),
        (b'{"task":{"taskId":"t1"}}', "tasks/result", b'{"content":[]}'),
        (b'{"task":{"taskId":"t1"}}', "tasks/cancel", b'{"status":"cancelled"}'),
    ],
)
async def test_a_task_keeps_its_server_awake_until_it_has_ended(
    begun: bytes, method: str, told: bytes
) -> None:
    kept = Kept()
    kept.idling.note(admitted("begin"), TaskCreated(begun))
    call = admitted("", {"taskId": "t1"}, method=method)
    kept.idling.note(admitted("", {"taskId": "t1"}, method="tasks/get"), _answer("working"))
    assert kept.idling.busy
    kept.idling.note(call, CallResult(told))
    assert not kept.idling.busy


async def test_a_task_nobody_asks_after_does_not_keep_it_for_ever(clock: Clock) -> None:
    kept = Kept()
    kept.idling.note(admitted("begin"), TaskCreated(b'{"task":{"taskId":"t1"}}'))
    clock.now += idling.TASK_SECONDS + 1
    assert not kept.idling.busy


async def test_who_wakes_a_server_waits_until_it_is_there_or_cannot_be() -> None:
    kept = Kept()
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


def test_only_what_the_same_declaration_listed_well_is_still_true() -> None:
    def listing(**more: Any) -> Listing:
        told = {"server": "s", "state": "ready", "declared": digest_of(PROCESS)}
        return Listing(**{**told, **more})

    assert still_true(listing(), PROCESS)
    assert not still_true(None, PROCESS)
    assert not still_true(listing(state="stale"), PROCESS)
    assert not still_true(listing(failed={"prompts/list": "no"}), PROCESS)
    assert not still_true(listing(), PROCESS.model_copy(update={"timeout": 5}))
    assert digest_of(Server(url="https://a.example")) == ""


def _answer(status: str) -> CallResult:
    return CallResult(b'{"status":"%b"}' % status.encode())
