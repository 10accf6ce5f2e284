"""Correction of a misspelled call of a tool: the line that the model should have written.

A call is parsed as Python, whose calls Starlark shares. It is never evaluated, and only a part of
limited size is inspected.
"""

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches

from toolbus_codemode.sandbox.program import Function, Namespace, Program

LONGEST_CALL = 1_000  # characters of source that are inspected
LONGEST_VALUE = 200  # characters of an argument in the corrected line
MAX_CALLS = 8  # calls inspected on one line
MAX_TOOLS = 3  # corrected lines, if several servers have the tool
MAX_RENAMED = 4  # unknown parameter names compared with a tool's parameters
MAX_PARAMETERS = 100  # parameters of a tool that are compared
_CALL = re.compile(
    r"\b[A-Za-z_]\w*+(?:\s*+\.\s*+\w++|\s*+\[\s*+[\"'][^\"'\]]++[\"']\s*+\])*+\s*+\("
)
# Parameters in which models pass all arguments as one object.
_WHOLE = frozenset({"arguments", "args", "kwargs", "params", "parameters", "input"})
_WRAPPERS = frozenset({"call", "try_call"})

Tool = tuple[Namespace, Function]


@dataclass(frozen=True, slots=True)
class _Call:
    """A call: the called expression's names and constant keys, and its arguments."""

    source: str
    words: list[str]
    is_attribute: bool
    positional: list[ast.expr]
    named: dict[str, ast.expr]

    @property
    def path(self) -> str:
        """The called expression as names with dots."""
        return ".".join(self.words)

    @property
    def texts(self) -> list[str]:
        """Leading arguments that may name a server and a tool."""
        texts = []
        for value in self.positional[:2]:
            text = value.id if isinstance(value, ast.Name) else _text(value)
            if text is None:
                break
            texts.append(text)
        return texts

    def text_of(self, value: ast.expr) -> str:
        """Return the source of an argument; a long one is an ellipsis."""
        text = ast.get_source_segment(self.source, value) or "…"
        return text if len(text) <= LONGEST_VALUE else "…"


def corrected(program: Program, line: int | None, misused: str = "") -> str:
    """Return the correct form of the line's call as a hint, or an empty text.

    `misused` is the unknown name, or the path of the tool whose arguments were wrong; only a call
    of it is corrected. If `misused` is empty, only a call such as `server["tool"](…)` or
    `server("tool")` is corrected.
    """
    lines = program.source.split("\n")
    if line is None or not 0 < line <= len(lines):
        return ""
    text = "\n".join(lines[line - 1 :])[:LONGEST_CALL]
    spaces = {each.server: each for each in program.tools}
    spaces |= {each.name: each for each in program.tools}
    for call in _calls(text, len(lines[line - 1])):
        if misused in (*call.words, call.path) if misused else _is_indexed(call, spaces):
            tools, used = _meant(call, program, spaces)
            written = [_written(call, each, used, program) for each in tools]
            if any(written):
                return "Write " + " or ".join(each for each in written if each)
    return ""


def tool_call(program: Program, line: int | None) -> str:
    """Return the source of the first call of a tool: on `line`, or anywhere if it is None."""
    lines = program.source.split("\n")
    number = line if line is not None and 0 < line <= len(lines) else 1
    text = "\n".join(lines[number - 1 :])[:LONGEST_CALL]
    paths = {f"{space.name}.{each.name}" for space in program.tools for each in space.functions}
    width = len(lines[number - 1]) if line is not None else len(text)
    return next((call.source for call in _calls(text, width) if call.path in paths), "")


def _calls(text: str, width: int) -> Iterator[_Call]:
    """Return the calls that begin in the first `width` characters."""
    for number, match in enumerate(_CALL.finditer(text)):
        if number == MAX_CALLS or match.start() >= width:
            return
        source = text[match.start() : _end(text, match.end())]
        with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            tree = ast.parse(source, mode="eval").body
            if isinstance(tree, ast.Call) and (call := _call(tree, source)):
                yield call


def _end(text: str, start: int) -> int:
    """Return the end of the call whose arguments begin at `start`, or `start` without an end."""
    depth, quote, escaped = 1, "", False
    for place in range(start, len(text)):
        sign = text[place]
        if quote:
            quote = "" if sign == quote and not escaped else quote
            escaped = sign == "\\" and not escaped
        elif sign in "\"'":
            quote = sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
            if not depth:
                return place + 1
    return start


def _call(tree: ast.Call, source: str) -> _Call | None:
    """Return a call, or None if its arguments are not all visible in it."""
    words, part = list[str](), tree.func
    while isinstance(part, ast.Attribute | ast.Subscript):
        words.append(part.attr if isinstance(part, ast.Attribute) else _text(part.slice) or "")
        part = part.value
    words.append(part.id if isinstance(part, ast.Name) else "")
    unpacked = [each.value for each in tree.keywords if each.arg is None]
    if not all(isinstance(each, ast.Dict) for each in unpacked) or any(
        isinstance(each, ast.Starred) for each in tree.args
    ):
        return None
    named = {each.arg: each.value for each in tree.keywords if each.arg is not None}
    attribute = isinstance(tree.func, ast.Attribute)
    return _Call(source, words[::-1], attribute, [*tree.args, *unpacked], named)


def _text(value: ast.expr) -> str | None:
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _is_indexed(call: _Call, spaces: dict[str, Namespace]) -> bool:
    return call.words[0] in spaces and not call.is_attribute


def _meant(call: _Call, program: Program, spaces: dict[str, Namespace]) -> tuple[list[Tool], int]:
    """Return the tools that a call may mean, and how many leading texts name server and tool."""
    if len(call.words) > 1 and (space := spaces.get(call.words[-2])):
        for each in space.functions:
            if call.words[-1] in (each.name, each.tool):
                names = {space.name, space.server, each.name, each.tool}
                texts = call.texts
                return [(space, each)], next(
                    (n for n, text in enumerate(texts) if text not in names), len(texts)
                )
    for used in range(len(call.texts), -1, -1):
        names_given = [*call.words, *call.texts[:used]]
        parts = [part for name in names_given for part in re.split(r"__|[./]", name)]
        named = [spaces[part] for part in parts if part in spaces]
        last = {names_given[-1], parts[-1]}
        tools = [
            (space, each)
            for space in dict.fromkeys(named or program.tools)
            for each in space.functions
            if each.name in last or each.tool in last
        ]
        if tools:
            return tools[:MAX_TOOLS], used
    return [], 0


def _written(call: _Call, tool: Tool, used: int, program: Program) -> str:
    """Return the call of a tool with its arguments by name; empty if it has this form already."""
    space, function = tool
    given = _arguments(call, used, function)
    order = {name: place for place, name in enumerate(function.parameters)}
    names = sorted(given, key=lambda name: order.get(name, len(order)))
    arguments = [f"{name}={given[name]}" for name in names]
    path = f"{space.name}.{function.name}"
    wrapper = call.path if program.engine == "starlark" else ""
    if wrapper == "try_call" or (wrapper == "call" and "parallel" in program.source):
        return f"{wrapper}({', '.join([path, *arguments])})"
    written = f"{path}({', '.join(arguments)})"
    if re.sub(r"\s", "", written) == re.sub(r"\s", "", call.source):
        return ""
    return f"await {written}" if program.engine == "python" else written


def _arguments(call: _Call, used: int, function: Function) -> dict[str, str]:
    """Return the sources of the arguments by parameter; a missing required one is an ellipsis."""
    known = function.parameters
    given, places = dict[str, str](), list[str]()
    wholes = [each for name, each in call.named.items() if name in _WHOLE and name not in known]
    for value in (*call.positional[used:], *wholes):
        if (whole := _whole(value, known)) is not None:
            given |= {name: call.text_of(each) for name, each in whole.items()}
        elif value not in wholes:
            places.append(call.text_of(value))
    left = []
    for name, value in call.named.items():
        if name in known or not known:
            given[name] = call.text_of(value)
        elif value not in wholes:
            left.append((name, call.text_of(value)))
    given |= dict(zip((name for name in known if name not in given), places, strict=False))
    for name, text in left[:MAX_RENAMED]:
        free = [each for each in known[:MAX_PARAMETERS] if each not in given]
        given |= dict.fromkeys(get_close_matches(name, free, n=1), text)
    return dict.fromkeys(known[: function.required], "…") | given


def _whole(value: ast.expr, known: tuple[str, ...]) -> dict[str, ast.expr] | None:
    """Return the members of an object literal that contains arguments by name."""
    if not isinstance(value, ast.Dict):
        return None
    names = [None if key is None else _text(key) for key in value.keys]
    members = {
        name: each
        for name, each in zip(names, value.values, strict=True)
        if name is not None and (name in known or (not known and name.isidentifier()))
    }
    return members if members and len(members) == len(names) else None
