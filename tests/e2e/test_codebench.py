"""The code mode benchmark on a few tasks: both agents are right, and programs need fewer tokens."""

from collections.abc import Iterator

import pytest

from scripted.gateway import Stage, stage
from scripted.tasks import Task, tasks

SIZE = 40
FEW = [task for task in tasks() if task.number == 1]


@pytest.fixture(scope="module")
def running() -> Iterator[Stage]:
    """Run a gateway in front of the benchmark's servers."""
    with stage((SIZE,)) as running_stage:
        yield running_stage


@pytest.mark.parametrize("task", FEW, ids=lambda task: task.name)
def test_both_agents_are_right_and_programs_need_fewer_tokens(running: Stage, task: Task) -> None:
    classic = running.run(task, SIZE, "tools", running.definitions(SIZE, "tools"))
    coded = running.run(task, SIZE, "code", running.definitions(SIZE, "code"))
    assert classic["right"]
    assert coded["right"]
    assert coded["input_tokens"] < classic["input_tokens"]


def test_the_benchmark_has_enough_tasks_of_two_to_ten_calls() -> None:
    assert len(tasks()) >= 60
    assert all(2 <= task.calls <= 10 for task in tasks())
    assert sum(task.family.hard for task in tasks()) > 30
