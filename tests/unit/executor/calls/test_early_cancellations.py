"""Cancellations that arrive before their calls: bounded in time and number."""

import pytest

from harness.services.call_runner import CallRunner, ReplyRecorder, admitted
from toolbus_common.contracts import CallFailed
from toolbus_common.errors import CallCancelledError
from toolbus_executor.calls import early_cancellations as early
from toolbus_executor.calls.early_cancellations import EarlyCancellations


def test_a_cancellation_before_its_call_is_returned_once() -> None:
    found = EarlyCancellations()
    assert not found.cancelled_at
    found.remember("a")
    assert found.cancelled_at
    assert [found.take("a"), found.take("a"), found.take("b")] == [True, False, False]


def test_the_oldest_are_evicted_first_and_all_expire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, now = EarlyCancellations(), 0.0
    monkeypatch.setattr(early, "MAX_ENTRIES", 3)
    monkeypatch.setattr(early, "monotonic", lambda: now)
    for call_id in "abcd":
        found.remember(call_id)
    assert [found.take(call_id) for call_id in "abcd"] == [False, True, True, True]
    found.remember("a")
    now = early.SECONDS + 1
    assert not found.take("a")
    found.remember("b")
    now += early.SECONDS + 1
    found.remember("c")
    assert [found.take(call_id) for call_id in "bc"] == [False, True]


async def test_a_call_cancelled_before_it_arrives_is_not_made() -> None:
    bench = CallRunner()  # its server does not exist: a call of it would fail otherwise
    bench.runner.early_cancellations.remember("taken-back")
    answers = ReplyRecorder()
    call = admitted("test_echo", {"text": "x"}).model_copy(update={"call_id": "taken-back"})
    await bench.run(call, answers)
    assert isinstance(answers.error, CallCancelledError)
    assert isinstance(bench.outcome, CallFailed)
    assert (bench.outcome.sent, bench.outcome.charge) == (False, 0)


def test_a_runner_reports_whether_a_call_is_running() -> None:
    assert CallRunner().runner.cancel("never-heard-of") is False
