"""The tasks of A2A clients: owners, limits and what is dropped."""

import pytest

from toolbus_common.access.anonymous import KEY_DIGEST
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.contracts import Progress
from toolbus_common.errors import BudgetExceededError, OverloadedError, UpstreamDeadError
from toolbus_ingress.a2a import tasks
from toolbus_ingress.a2a.tasks import Tasks
from toolbus_ingress.auth.request_context import Caller

RESULT = b'{"content":[{"type":"text","text":"done"}]}'


def caller(digest: str) -> Caller:
    return Caller(digest, digest, EffectiveGrants(()), "")


ANN, BOB = caller("a" * 64), caller("b" * 64)


def ended(store: Tasks, owner: Caller, result: bytes = RESULT) -> str:
    task = store.begin(owner, "c", "")
    task.completed(result)
    store.end(task, owner)
    return task.id


def test_a_task_is_found_by_its_owner_only() -> None:
    store = Tasks()
    running = store.begin(ANN, "c1", "context")
    kept = ended(store, ANN)
    for task_id in (running.id, kept):
        assert store.find(task_id, ANN) is not None
        assert store.find(task_id, BOB) is None
    assert [each.id for each in store.of(ANN)] == [running.id, kept]
    assert store.of(BOB) == []
    assert store.find({"id": kept}, ANN) is None


def test_an_anonymous_caller_has_no_task_after_the_response() -> None:
    store, anonymous = Tasks(), caller(KEY_DIGEST)
    task = store.begin(anonymous, "c", "")
    assert store.find(task.id, anonymous) is None
    task.completed(RESULT)
    store.end(task, anonymous)
    assert store.find(task.id, anonymous) is None
    assert store.of(anonymous) == []


def test_a_task_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Tasks()
    kept = ended(store, ANN)
    monkeypatch.setattr(tasks, "KEPT_SECONDS", 0.0)
    assert store.find(kept, ANN) is None


def test_running_and_kept_tasks_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MAX_RUNNING_OF_ONE", 2)
    monkeypatch.setattr(tasks, "MAX_KEPT_OF_ONE", 3)
    store = Tasks()
    of_bob = ended(store, BOB)
    kept = [ended(store, ANN) for _ in range(5)]
    assert [store.find(each, ANN) is not None for each in kept] == [False, False, True, True, True]
    assert store.find(of_bob, BOB) is not None
    store.begin(ANN, "c1", "")
    store.begin(ANN, "c2", "")
    with pytest.raises(OverloadedError):
        store.begin(ANN, "c3", "")
    store.begin(BOB, "c4", "")


def test_the_bytes_of_kept_results_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MAX_KEPT_BYTES", 2 * len(RESULT))
    store = Tasks()
    kept = [ended(store, ANN) for _ in range(3)]
    assert [store.find(each, ANN) is not None for each in kept] == [False, True, True]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (BudgetExceededError("none left"), "rejected"),
        (UpstreamDeadError("gone"), "failed"),
    ],
)
def test_an_error_is_a_state(error: Exception, state: str) -> None:
    task = Tasks().begin(ANN, "c", "")
    task.failed(error)  # type: ignore[arg-type]
    assert task.status.state == state


async def test_malformed_progress_is_no_failure() -> None:
    task = Tasks().begin(ANN, "c", "")
    for body in (b'{"message":{}}', b"[" * 100_000, b"x", b'{"progress":1}'):
        task.notified(Progress(body))
        assert (task.status.state, task.status.words) == ("working", ())
    task.notified(Progress(b'{"message":"half"}'))
    assert task.status.words[0].text == "half"
    task.completed(b'{"content":[],"isError":true}')
    task.notified(Progress(b"{}"))
    assert task.status.state == "failed"
