"""A published benchmark's files: what is read of them, and the tools that stand in for its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripted.published import Answering, FormError, arguments_for, published

TOOLS = [
    {"tool_name": "read_file", "description": "Read a file.", "server": "File System"},
    {"tool_name": "search", "description": "Search pages.", "server": "Notion"},
    {"tool_name": "search", "description": "Search mail.", "server": "Mail"},
]
TASKS = [
    {
        "id": "1",
        "difficulty": "hard",
        "query": "Find the mail, then read the file.",
        "expected_servers": ["Mail", "FileSystem"],
        "expected_tools": ["search", "read_file", "nowhere"],
    },
    {"id": "2", "difficulty": "simple", "query": "Fly.", "expected_tools": ["fly"]},
]


def written(directory: Path, name: str, told: Any) -> Path:
    path = directory / name
    path.write_text(json.dumps(told))
    return path


def test_a_task_has_the_tools_of_the_servers_it_names(tmp_path: Path) -> None:
    files = written(tmp_path, "tools", TOOLS), written(tmp_path, "tasks", TASKS)
    known = published(*files)
    assert set(known.tools) == {"file-system", "notion", "mail"}
    assert known.size == 3
    (task,) = known.tasks
    assert task.tools == ("mail__search", "file-system__read_file")
    assert task.hard


def test_what_no_server_has_is_counted(tmp_path: Path) -> None:
    known = published(written(tmp_path, "tools", TOOLS), written(tmp_path, "tasks", TASKS))
    assert (known.unknown, known.passed_over) == (2, 1)


def test_schemas_are_the_same_every_time_and_take_their_own_arguments(tmp_path: Path) -> None:
    files = written(tmp_path, "tools", TOOLS), written(tmp_path, "tasks", TASKS)
    known = published(*files)
    assert known.tools == published(*files).tools
    answering = Answering(known.tools)
    for server, tools in known.tools.items():
        for tool in tools:
            assert answering.call(server, tool["name"], arguments_for(tool))["items"]
    assert len(answering.effects) == 3


def test_a_call_without_what_is_required_is_refused(tmp_path: Path) -> None:
    known = published(written(tmp_path, "tools", TOOLS), written(tmp_path, "tasks", TASKS))
    answering = Answering(known.tools)
    with pytest.raises(KeyError):
        answering.call("mail", "search", {})
    with pytest.raises(KeyError):
        answering.call("mail", "nothing", {})
    assert answering.effects == []


@pytest.mark.parametrize("told", [{}, [1], [{"tool_name": "x"}]])
def test_a_file_of_another_form_is_refused_with_its_name(tmp_path: Path, told: Any) -> None:
    with pytest.raises(FormError, match="tools"):
        published(written(tmp_path, "tools", told), written(tmp_path, "tasks", TASKS))
