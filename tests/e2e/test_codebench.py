"""The benchmark's agents on a few tasks: both right, and programs need less reading."""

from collections.abc import Iterator

import pytest

from scripted.gateway import Stage, stage
from scripted.tasks import Task, tasks

SIZE = 40
FEW = [task for task in tasks() if task.number == 1]


@pytest.fixture(scope="module")
def running() -> Iterator[Stage]:
    """A gateway before the benchmark's servers."""
    with stage((SIZE,)) as made:
        yield made


@pytest.mark.parametrize("task", FEW, ids=lambda task: task.name)
def test_both_agents_are_right_and_programs_read_less(running: Stage, task: Task) -> None:
    classic = running.run(task, SIZE, "tools", running.definitions(SIZE, "tools"))
    coded = running.run(task, SIZE, "code", running.definitions(SIZE, "code"))
    assert classic["right"]
    assert coded["right"]
    assert coded["input_tokens"] < classic["input_tokens"]


def test_there_are_tasks_enough_of_two_to_ten_calls() -> None:
    assert len(tasks()) >= 60
    assert all(2 <= task.calls <= 10 for task in tasks())
    assert sum(task.family.hard for task in tasks()) > 30
