"""A published benchmark's files: parsing, and the tools that replace its own."""

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


def written(directory: Path, name: str, content: Any) -> Path:
    path = directory / name
    path.write_text(json.dumps(content))
    return path


def test_a_task_has_the_tools_of_the_servers_it_names(tmp_path: Path) -> None:
    files = written(tmp_path, "tools", TOOLS), written(tmp_path, "tasks", TASKS)
    known = published(*files)
    assert set(known.tools) == {"file-system", "notion", "mail"}
    assert known.size == 3
    (task,) = known.tasks
    assert task.tools == ("mail__search", "file-system__read_file")
    assert task.hard


def test_tools_no_server_has_are_counted(tmp_path: Path) -> None:
    known = published(written(tmp_path, "tools", TOOLS), written(tmp_path, "tasks", TASKS))
    assert (known.unknown, known.passed_over) == (2, 1)


def test_generated_schemas_are_stable_and_accept_generated_arguments(tmp_path: Path) -> None:
    files = written(tmp_path, "tools", TOOLS), written(tmp_path, "tasks", TASKS)
    known = published(*files)
    assert known.tools == published(*files).tools
    answering = Answering(known.tools)
    for server, tools in known.tools.items():
        for tool in tools:
            assert answering.call(server, tool["name"], arguments_for(tool))["items"]
    assert len(answering.effects) == 3


def test_a_call_without_required_arguments_is_rejected(tmp_path: Path) -> None:
    known = published(written(tmp_path, "tools", TOOLS), written(tmp_path, "tasks", TASKS))
    answering = Answering(known.tools)
    with pytest.raises(KeyError):
        answering.call("mail", "search", {})
    with pytest.raises(KeyError):
        answering.call("mail", "nothing", {})
    assert answering.effects == []


@pytest.mark.parametrize("content", [{}, [1], [{"tool_name": "x"}]])
def test_a_file_of_another_form_is_rejected_by_name(tmp_path: Path, content: Any) -> None:
    with pytest.raises(FormError, match="tools"):
        published(written(tmp_path, "tools", content), written(tmp_path, "tasks", TASKS))
