"""Correct, before a program runs, what models often write although it cannot work.

Models write `result = files.read_file(path="a")` in Python without `await`. A program without
`await` could not use any result, so each of its calls is awaited.

Models also write `import files`, although a program has its servers without an import. In Starlark,
the line is an error, and in Python, a module of the same name can hide the server. So the line is
removed.
"""

import ast
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from toolbus_codemode.sandbox.program import Program

LONGEST_SOURCE = 8_000  # characters; a longer program is not changed
# Such a program awaits its calls itself, or may call tools where `await` is not allowed.
_UNCHANGED = re.compile(r"\b(?:await|async|asyncio|def|lambda|class)\b")


_IMPORT = re.compile(r"^import[ \t]+(\w+)[ \t]*$", re.MULTILINE)
_LONG_TEXTS = ('"""', "'''")  # may contain lines that look like imports


def prepared(program: Program) -> str:
    """Return the source as it runs. Line numbers do not change."""
    return with_awaits(replace(program, source=without_imports(program)))


def without_imports(program: Program) -> str:
    """Return the source without imports of built-in names: servers, and JSON in Starlark.

    If the program uses a member of the name that is not a tool, it means another module, and the
    import stays.
    """
    source = program.source
    if (
        len(source) > LONGEST_SOURCE
        or "import" not in source
        or any(each in source for each in _LONG_TEXTS)
    ):
        return source
    servers = {space.name: {each.name for each in space.functions} for space in program.tools}
    known = {"json", *servers} if program.engine == "starlark" else set(servers)

    def replaced(line: re.Match[str]) -> str:
        name = line[1]
        if name not in known:
            return line[0]
        used = set(re.findall(rf"\b{name}\.(\w+)", source))
        return "" if used <= servers.get(name, used) else line[0]

    return _IMPORT.sub(replaced, source)


def with_awaits(program: Program) -> str:
    """Return the source in which each call of a tool is awaited. Line numbers do not change."""
    source = program.source
    if (
        program.engine != "python"
        or len(source) > LONGEST_SOURCE
        or not source.isascii()  # positions in a syntax tree are bytes
        or _UNCHANGED.search(source)
    ):
        return source
    with warnings.catch_warnings(), suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        warnings.simplefilter("ignore")  # a warning would quote the program in the log
        tree = ast.parse(source)
        if not any(isinstance(node, ast.GeneratorExp) for node in ast.walk(tree)):
            return _changed(source, list(_tool_calls(tree, program)))
    return source


def _tool_calls(tree: ast.Module, program: Program) -> Iterator[ast.Call]:
    """Yield the calls of the program's tools."""
    spaces = {space.name: {each.name for each in space.functions} for space in program.tools}
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in spaces.get(node.module or "", ())
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=space), attr=name)):
                if name in spaces.get(space, ()):
                    yield node
            case ast.Call(func=ast.Name(id=name)) if name in imported:
                yield node


def _changed(source: str, calls: list[ast.Call]) -> str:
    lines = source.splitlines(keepends=True)
    places = [(each.lineno, each.col_offset, "(await ") for each in calls]
    places += [(each.end_lineno or 0, each.end_col_offset or 0, ")") for each in calls]
    for line, column, text in sorted(places, reverse=True):
        before = lines[line - 1]
        lines[line - 1] = before[:column] + text + before[column:]
    return "".join(lines)
