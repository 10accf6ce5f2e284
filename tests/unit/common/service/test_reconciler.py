"""What runs is brought in line with what is configured."""

import asyncio

from toolbus_common.concurrency import end
from toolbus_common.service.reconciler import Reconciler


class Part:
    """A part that notes in a log when it starts and stops."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self.stopping = asyncio.Event()
        log.append(f"start {name}")

    async def stop(self, *, removed: bool) -> None:
        self.log.append(f"stop {self.name}{' for good' if removed else ''}")
        self.stopping.set()
        await self.may_stop.wait()
        self.log.append(f"stopped {self.name}")


def reconciler(log: list[str]) -> Reconciler[int, Part]:
    return Reconciler(lambda name, entry: Part(f"{name}{entry}", log), Part.stop)


async def test_only_the_parts_of_changed_entries_restart() -> None:
    log: list[str] = []
    parts = reconciler(log)
    await parts.reconcile({"a": 1, "b": 1})
    untouched = parts.get("a")
    await parts.reconcile({"a": 1, "b": 2})
    assert log == ["start a1", "start b1", "stop b1", "stopped b1", "start b2"]
    assert parts.get("a") is untouched
    assert {name: part.name for name, part in parts.items()} == {"a": "a1", "b": "b2"}


async def test_the_part_of_a_removed_entry_stops_for_good() -> None:
    log: list[str] = []
    parts = reconciler(log)
    await parts.reconcile({"a": 1})
    await parts.reconcile({})
    assert log == ["start a1", "stop a1 for good", "stopped a1"]
    assert (len(parts), parts.get("a")) == (0, None)


async def test_parts_stop_together_before_any_starts() -> None:
    log: list[str] = []
    parts = reconciler(log)
    await parts.reconcile({"a": 1, "b": 1})
    first, second = parts
    first.may_stop.clear()
    changing = asyncio.create_task(parts.reconcile({"a": 2, "b": 2}))
    await second.stopping.wait()
    await asyncio.sleep(0)  # the second part has stopped, the first one has not
    assert log[-1] == "stopped b1"
    first.may_stop.set()
    await changing
    assert log[-3:] == ["stopped a1", "start a2", "start b2"]


async def test_a_part_can_be_found_while_all_are_stopping() -> None:
    log: list[str] = []
    parts = reconciler(log)
    await parts.reconcile({"a": 1})
    only = parts.get("a")
    assert only is not None
    only.may_stop.clear()
    closing = asyncio.create_task(parts.close())
    await only.stopping.wait()
    assert parts.get("a") is only
    only.may_stop.set()
    await closing
    assert list(parts) == []


async def test_a_part_is_stopped_although_the_reconciliation_is_cancelled() -> None:
    log: list[str] = []
    parts = reconciler(log)
    await parts.reconcile({"a": 1})
    part = parts.get("a")
    assert part is not None
    part.may_stop.clear()
    reconciling = asyncio.create_task(parts.reconcile({}))
    await part.stopping.wait()
    reconciling.cancel()
    await asyncio.sleep(0)
    part.may_stop.set()
    await end(reconciling)
    assert log[-1] == "stopped a1"
