"""The tasks of the agent benchmark, and how their answers are judged."""

from pathlib import Path

import pytest

from model_agent.records import GUESSED, RIGHT, WRONG, verdict
from model_agent.tasks import STATE, TASKS
from model_agent.workspace import COMMITS, Workspace

TASK = {each.name: each for each in TASKS}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path)
    made.reset()
    return made


@pytest.mark.parametrize(
    ("name", "answer", "right"),
    [
        ("port", "8417", True),
        ("port", "The port is 8417.", True),
        ("port", "8417 or 8080", False),
        ("port", "", False),
        ("sum", "4718 + 2965 = 7,683", True),
        ("sum", "4718 + 2965 = 7684", False),
        ("convert", "05:45", True),
        ("convert", "09:15 in Tokyo is 05:45 in Kolkata", True),
        ("convert", "12:45", False),
        ("author", "Olga Petrov", True),
        ("author", "Mara Lind and Olga Petrov", False),
        ("word", "{dir}/notes/engine.txt", True),
        ("word", "engine.txt, deck.txt", False),
        ("branch", "harvest", True),
        ("branch", "main", False),
        ("oldest", "leo marin", True),
    ],
)
def test_an_answer_is_right_only_with_the_one_value(
    name: str, answer: str, *, right: bool, workspace: Workspace
) -> None:
    text = answer.format(dir=workspace.directory)
    assert TASK[name].is_right(text, workspace) is right


def test_a_requested_change_must_have_been_made(workspace: Workspace) -> None:
    assert not TASK["write"].is_right("done", workspace)
    (workspace.written / "state.txt").write_text(STATE)
    assert TASK["write"].is_right("done", workspace)
    workspace.reset()
    assert not TASK["write"].is_right("done", workspace)


def test_a_right_answer_without_a_useful_call_is_guessed() -> None:
    useful = frozenset({"disk__read_text_file"})
    called = {"disk__read_text_file", "toolbus__executeToolCode"}
    assert verdict(is_right=True, called=called, useful=useful) == RIGHT
    assert verdict(is_right=True, called={"git__git_log"}, useful=useful) == GUESSED
    assert verdict(is_right=False, called=called, useful=useful) == WRONG


def test_the_repository_is_the_same_each_time(tmp_path: Path) -> None:
    heads = []
    for name in ("one", "two"):
        made = Workspace(tmp_path / name)
        made.create()
        heads.append((made.repository / ".git" / "refs" / "heads" / "harvest").read_text())
        assert len((made.repository / ".git" / "logs" / "HEAD").read_text().splitlines()) == len(
            COMMITS
        )
    assert heads[0] == heads[1]
