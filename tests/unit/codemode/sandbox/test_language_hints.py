"""Hints for programs that use what their language lacks."""

import pytest

from toolbus_codemode.sandbox.error_hints import explained
from toolbus_codemode.sandbox.program import Engine, Function, Namespace, Program
from toolbus_codemode.sandbox.protocol import ProgramFailed

FILES = (
    Function("read_text_file", "read_text_file", ("path", "head"), 1),
    Function("list_directory", "list_directory", ("path",), 1),
    Function("write_file", "write_file", ("path", "content"), 2),
)
CONVERT = Function(
    "convert_time", "convert_time", ("source_timezone", "time", "target_timezone"), 3
)
SERVERS = (Namespace("disk", "disk", FILES), Namespace("time", "time", (CONVERT,)))
DENIED = "PermissionError: Permission denied: '/a/b.json'"


def hint(
    message: str,
    source: str,
    engine: Engine = "starlark",
    tools: tuple[Namespace, ...] = SERVERS,
    name: str = "runtime",
) -> str:
    return explained(ProgramFailed(name, message, 1, 1), Program(source, engine, tools)).hint


def keyword(word: str) -> str:
    return f"Parse error: cannot use reserved keyword `{word}`"


@pytest.mark.parametrize(
    ("message", "source", "engine", "call"),
    [
        (DENIED, "with open('/a/b.json') as f:\n    print(f.read())", "python",
         'await disk.read_text_file(path="/a/b.json")'),
        (keyword("with"), "with open('/a/b.json') as f:\n    result = f", "starlark",
         'disk.read_text_file(path="/a/b.json")'),
        (keyword("import"), "import os\nresult = len(os.listdir('/a/notes'))", "starlark",
         'disk.list_directory(path="/a/notes")'),
        ("Variable `open` not found", "result = open(name).read()", "starlark",
         "disk.read_text_file(path=…)"),
        (DENIED, "for name in ['/a/b.json', '/a/c.json']:\n    open(name)", "python",
         '[await disk.read_text_file(path=path) for path in ["/a/b.json", "/a/c.json"]]'),
        (DENIED, "open('/a/b.txt', 'w').write('x')", "python",
         'await disk.write_file(path="/a/b.txt", content=…)'),
        (DENIED, "with open('/a/b.txt', mode='a') as f:\n    f.write('x')", "python",
         'await disk.write_file(path="/a/b.txt", content=…)'),
        (DENIED, f"open('/{'a' * 500}')", "python", "await disk.read_text_file(path=…)"),
    ],
)  # fmt: skip
def test_a_program_that_opens_a_file_gets_the_call_of_a_tool(
    message: str, source: str, engine: Engine, call: str
) -> None:
    assert hint(message, source, engine).endswith(f"Write result = {call}")


def test_without_a_tool_for_files_the_hint_says_only_that_there_are_no_files() -> None:
    assert "Programs have no files" in hint(DENIED, "open('/a/b.json')", "python", SERVERS[1:])


def test_a_missing_module_gets_tools_that_share_words_with_the_program() -> None:
    source = "from pytz import timezone\nsource = timezone('Asia/Tokyo')\ntarget = source.time()"
    found = hint("ModuleNotFoundError: No module named 'pytz'", source, "python")
    assert "time.convert_time(source_timezone=…, time=…, target_timezone=…)" in found
    assert found.index("time.convert_time") < (found + "disk.").index("disk.")
    assert "searchTools" in hint("ModuleNotFoundError: No module named 'x'", "import x", "python")


def test_a_rare_word_of_a_missing_module_is_enough() -> None:
    found = hint("ModuleNotFoundError: No module named 'pytz'", "pytz.timezone('UTC')", "python")
    assert "time.convert_time(" in found


def test_a_failed_only_call_gets_other_tools_instead_of_a_way_to_catch_it() -> None:
    failed = ProgramFailed("tool_failed", "tool_error: no such file", 1, 1, "tool_error")

    def advice(source: str) -> str:
        return explained(failed, Program(source, "starlark", SERVERS)).hint

    assert advice("result = disk.write_file('a', 'b')") == (
        "Correct the arguments of disk.write_file, or call another tool. disk also has "
        "disk.list_directory, disk.read_text_file."
    )
    assert "try_call" in advice("disk.write_file('a', 'b')\ndisk.read_text_file('a')")
    assert "try_call" in advice("for p in 'ab':\n    disk.read_text_file(p)")


@pytest.mark.parametrize(
    "message",
    [
        "SyntaxError: Compound statements are not allowed on the same line as simple statements",
        "SyntaxError: Expected newline, found `except`",
    ],
)
def test_statements_on_one_line_are_to_be_separated(message: str) -> None:
    source = "try: x = 1 except RuntimeError: x = 2"
    assert "a line of its own" in hint(message, source, "python", name="syntax")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("import", "json.decode"),
        ("try", "no try"),
        ("while", "for i in range"),
        ("with", "no with"),
        ("class", "no classes"),
        ("is", "=="),
        ("await", "no await"),
    ],
)
def test_a_statement_that_starlark_lacks_gets_its_replacement(word: str, expected: str) -> None:
    assert expected in hint(keyword(word), f"{word} x", name="syntax")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Object of type `namespace` has no attribute `loads`", "json.decode(text)"),
        ("Object of type `namespace` has no attribute `dumps`", "json.encode(value)"),
        ("Object of type `dict` has no attribute `split`", 'value["content"]'),
        ("AttributeError: 'dict' object has no attribute 'split'", 'value["content"]'),
    ],
)
def test_an_attribute_that_a_value_lacks_gets_what_exists(message: str, expected: str) -> None:
    assert expected in hint(message, "x.y()", name="unknown_name")


def test_hostile_source_gets_a_short_hint() -> None:
    for source in ("open(" * 20_000, "open('" + "/" * 60_000, '"/"' * 20_000 + "open("):
        assert len(hint(DENIED, source, "python")) < 500
