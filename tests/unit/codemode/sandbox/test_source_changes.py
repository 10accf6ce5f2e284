"""Changes of programs before they run."""

import pytest

from toolbus_codemode.sandbox.program import Engine, Function, Namespace, Program
from toolbus_codemode.sandbox.source_changes import LONGEST_SOURCE, prepared

TOOLS = (Namespace("files", "files", (Function("read", "read", ("path",), 1),)),)


def changed(source: str, engine: Engine = "python") -> str:
    return prepared(Program(source, engine, TOOLS))


def test_each_call_of_a_tool_is_awaited_in_its_place() -> None:
    source = "x = files.read('a')['b']; y = files.read(\n    'c')\nprint(x)"
    assert changed(source) == (
        "x = (await files.read('a'))['b']; y = (await files.read(\n    'c'))\nprint(x)"
    )


def test_calls_of_imported_tools_are_awaited() -> None:
    source = "from files import read as get, other\nx = get('a')\nother('b')"
    assert changed(source) == source.replace("get('a')", "(await get('a'))")


@pytest.mark.parametrize(
    "source",
    [
        "x = await files.read('a')\nfiles.read('b')",
        "import asyncio\nx = [files.read('a')]",
        "def f():\n    return files.read('a')\nf()",
        "f = lambda: files.read('a')",
        "any(files.read(p) for p in 'ab')",
        "files.write('a')",
        "other.read('a')",
        "files.read('é')",
        "x = files.read('a'",
        "x = '\\d'",
        "(" * 3_000 + "files.read('a')" + ")" * 3_000,
        "-" * 7_000 + "files.read('a')",
        "x = 1\n" * LONGEST_SOURCE + "files.read('a')",
    ],
)
def test_another_program_is_not_changed(source: str) -> None:
    assert changed(source) == source


def test_a_starlark_program_is_not_changed() -> None:
    assert changed("files.read('a')", "starlark") == "files.read('a')"


@pytest.mark.parametrize("engine", ["python", "starlark"])
def test_the_import_of_a_server_is_removed_and_lines_keep_their_numbers(engine: Engine) -> None:
    assert changed("import files\nx = files.read('a')", engine).startswith("\nx = ")


def test_the_import_of_json_is_removed_in_starlark_only() -> None:
    source = "import json\nx = json.decode('1')"
    assert changed(source, "starlark") == "\nx = json.decode('1')"
    assert changed(source) == source


@pytest.mark.parametrize(
    "source",
    [
        "import files\nx = files.other()",
        "import files as f\nx = 1",
        "import math\nx = files.read('a')",
        "x = 1 # import files",
        "x = '''\nimport files\n'''\nfiles.read(x)",
        "import files\n" + "x = 1\n" * LONGEST_SOURCE,
    ],
)
def test_another_import_stays(source: str) -> None:
    assert changed(source, "starlark") == source
