"""Paths that are no stubs: what the answer says, and which tool it names."""

from typing import Any

import pytest

from toolbus_codemode.catalog.builtin_tools import own_listing
from toolbus_codemode.catalog.namespace import ToolNamespace
from toolbus_codemode.catalog.path_errors import LONGEST_PATH
from toolbus_codemode.catalog.stub_tree import read, tree
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.errors import InvalidError
from toolbus_common.mcp.builtin_server import EXECUTE, READ

EVERYTHING = EffectiveGrants((("*",),))
PATH = {"inputSchema": {"properties": {"path": {"type": "string"}}, "required": ["path"]}}
NAMES = ("get_file_info", "list_directory", "read_media_file", "read_text_file", "write_file")
FILES: dict[str, dict[str, Any]] = {
    "files": dict.fromkeys(NAMES, PATH),
    "mail": {"send": {}},
}


def error_of(name: str, bounds: EffectiveGrants = EVERYTHING, *, listed: bool = False) -> str:
    namespace = ToolNamespace(FILES, bounds)
    with pytest.raises(InvalidError) as failure:
        tree(namespace, name) if listed else read(namespace, name)
    return failure.value.reason


@pytest.mark.parametrize("path", ["/tmp/notes.txt", "tmp.pyi", "C:\\notes.txt", "../notes"])
def test_a_path_that_is_no_stub_is_answered_with_the_tool_that_reads_files(path: str) -> None:
    reason = error_of(path)
    assert "These files are stubs of tools, not files of a disk" in reason
    assert "files.read_text_file(path=" in reason
    assert "the servers are files, mail" in reason


def test_a_path_below_a_servers_name_is_answered_with_the_tool_that_reads_files() -> None:
    assert 'files.read_text_file(path="files/tmp/a.txt")' in error_of("files/tmp/a.txt")


def test_a_directory_is_answered_with_the_tool_that_lists_directories() -> None:
    assert 'files.list_directory(path="/tmp")' in error_of("/tmp", listed=True)


def test_a_tool_that_is_not_granted_is_not_named() -> None:
    reason = error_of("/tmp/a", EffectiveGrants((("mail__*", "files__write_file"),)))
    assert "These files are stubs" in reason
    assert "executeToolCode" not in reason


def test_a_misspelled_server_is_answered_with_its_file() -> None:
    reason = error_of("file.pyi")
    assert reason.endswith("Did you mean files.pyi?")


def test_a_long_path_is_shortened() -> None:
    assert len(error_of("/" + "x" * 100_000)) < 3 * LONGEST_PATH + 400


def test_many_servers_are_not_all_named() -> None:
    many = ToolNamespace({f"s{number:04}": {"t": {}} for number in range(5_000)}, EVERYTHING)
    with pytest.raises(InvalidError, match="and 4980 more"):
        read(many, "/tmp/a")


# -- definitions -------------------------------------------------------------------------------


def test_the_range_of_lines_is_described_but_is_no_declared_parameter() -> None:
    (tool,) = (each.definition for each in own_listing().tools if each.name == READ)
    assert list(tool["inputSchema"]["properties"]) == ["fileName"]
    assert "startLine and endLine select from more than 100 lines" in tool["description"]


def test_the_description_of_programs_has_two_complete_lines() -> None:
    (tool,) = (each.definition for each in own_listing().tools if each.name == EXECUTE)
    lines = tool["description"].splitlines()
    assert lines[1] == 'issues = github.list_issues(repo="a/b", limit=5)'
    assert lines[2].startswith("result = [github.get_issue(")
