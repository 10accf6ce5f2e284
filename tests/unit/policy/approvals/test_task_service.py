"""Deferred calls in memory, and the examination of many of them."""

import asyncio
from typing import Any

import msgspec
import pytest

from harness.waits import until
from toolbus_common.contracts import ProtocolFamily
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.sealed_records import Records
from toolbus_common.nats.topology import APPROVALS, TASKS
from toolbus_policy.approvals.repository import ApprovalRepository
from toolbus_policy.approvals.tasks import service as task_service
from toolbus_policy.approvals.tasks.model import DeferredCall, Step
from toolbus_policy.approvals.tasks.repository import TaskRepository

KEY = bytes(32)


def change(number: int, key: str = "bot", revision: int = 1) -> Change:
    task = DeferredCall(
        id=f"{number:032x}", binding=f"{number:064x}", key=key, server="docs", tool="burn",
        family=ProtocolFamily.MODERN, page="", requested_at=0, changed_at=0, ends=1, kept_until=1,
        seconds=1,
    )  # fmt: skip
    sealed = Records(TASKS, [KEY]).seal(task.id, msgspec.json.encode(task))
    return Change(task.id, sealed, revision)


def test_tasks_are_counted_for_each_key() -> None:
    book = TaskRepository(Records(TASKS, [KEY]))
    for number in range(3):
        book.apply_change(change(number))
        book.apply_change(change(number, revision=2))
    book.apply_change(change(9, "other"))
    assert (
        book.count_for_key("bot"),
        book.count_for_key("other"),
        book.count_for_key("nobody"),
    ) == (3, 1, 0)
    for _ in range(2):
        book.apply_change(Change(f"{0:032x}", None, 3))
    assert book.count_for_key("bot") == 2


async def test_the_event_loop_is_shared_while_many_tasks_are_examined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = 3 * task_service.BATCH_SIZE
    book, nothing = TaskRepository(Records(TASKS, [KEY])), Any
    for number in range(many):
        book.apply_change(change(number))
    turns, seen = 0, list[int]()

    def next_step(*_: Any) -> Step:
        seen.append(turns)
        return Step.NOTHING

    monkeypatch.setattr(task_service, "next_step", next_step)
    monkeypatch.setattr(task_service, "SWEEP_SECONDS", 0.001)
    made: Any = task_service.TaskService
    working = asyncio.create_task(
        made(book, ApprovalRepository(Records(APPROVALS, [KEY])), nothing, nothing, 5.0).run()
    )

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    calls = asyncio.create_task(others())
    try:
        await until(lambda: len(seen) >= many, "all of them")
    finally:
        working.cancel()
        calls.cancel()
    assert seen[many - 1] > seen[0]
