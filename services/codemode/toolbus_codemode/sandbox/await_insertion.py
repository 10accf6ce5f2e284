"""Insertion of `await` into Python programs that call tools as plain functions.

Models often write `result = files.read_file(path="a")` without `await`. A program without `await`
could not use any result, so each of its calls is awaited.
"""

import ast
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress

from toolbus_codemode.sandbox.program import Program

LONGEST_SOURCE = 8_000  # characters; a longer program is not changed
# Such a program awaits its calls itself, or may call tools where `await` is not allowed.
_UNCHANGED = re.compile(r"\b(?:await|async|asyncio|def|lambda|class)\b")


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
