"""Hints for programs that use what their language lacks: files, imports, statements, members."""

import json
import re
from collections import Counter
from itertools import islice

from toolbus_codemode.sandbox.call_correction import tool_call
from toolbus_codemode.sandbox.file_tools import LISTER, READER, WRITER, file_tool
from toolbus_codemode.sandbox.program import SHOWN_PARAMETERS, Function, Program
from toolbus_codemode.sandbox.protocol import ProgramFailed

LONGEST_SOURCE = 8_000  # characters that are inspected
MAX_PATHS = 8  # files for which a program gets the call
MAX_TOOLS = 2_000  # tools that are compared with a program
RELATED = 3
_KEYWORD = re.compile(r"reserved keyword `(\w+)`")
_LISTED = re.compile(r"\bos\.(?:listdir|walk|scandir)\b|\.iterdir\(|\bglob\b")
_WRITTEN = re.compile(r"\bopen\([^()\n]{0,300},\s?(?:mode\s?=\s?)?[\"'][wax]|\.write_text\(")
_OPENED = re.compile(r"\bopen\(|\.read_text\(|\bPath\(|\bos\.path\b")
_TEXT = re.compile(r"[\"']([^\"'\n]{0,200})[\"']")
_NO_FILE = re.compile(
    r"reserved keyword `(?:with|import|from|try)`|Variable `(?:open|os|Path)` not found"
    r"|PermissionError|FileNotFoundError|NotImplementedError|name '(?:open|os|Path)' is not defined"
    r"|ModuleNotFoundError"
)
_NO_MODULE = re.compile(r"ModuleNotFoundError|ImportError")
_WORD = re.compile(r"[a-z]{3,20}")
_COMMON = frozenset({"for", "from", "import", "print", "result", "the", "name", "path", "with"})
_FIXED = (
    (
        re.compile(r"SyntaxError: .*(?:on the same line|Expected newline|Expected a statement)"),
        "Write each statement on a line of its own, and indent the lines of a block.",
    ),
    (
        re.compile(r"type `dict` has no attribute|'dict' object has no attribute"),
        'The value is a dict: use a member of it, such as value["content"]; print shows it.',
    ),
)
_JSON = re.compile(r"type `namespace` has no attribute `(loads|dumps)`")
_JSON_NAMES = {"loads": "json.decode(text)", "dumps": "json.encode(value)"}
_NO_TRY = "Starlark has no try: remove it. A failed call ends the program with its reason."
_NO_AWAIT = "Starlark needs no await: write the call without it."
_NO_IMPORT = (
    "Starlark has no import: remove the line. json.decode(text) and json.encode(value) exist "
    "without it, and tools do everything else."
)
KEYWORDS = {
    "import": _NO_IMPORT,
    "from": _NO_IMPORT,
    "try": _NO_TRY,
    "except": _NO_TRY,
    "finally": _NO_TRY,
    "raise": "Starlark has no raise: call fail(message).",
    "while": "Starlark has no while: use for i in range(100), and break.",
    "with": "Starlark has no with: call the tool, and assign its value.",
    "class": "Starlark has no classes: use functions and dicts.",
    "is": "Starlark has no is: write ==.",
    "async": _NO_AWAIT,
    "await": _NO_AWAIT,
}


def language_hint(failed: ProgramFailed, program: Program) -> str:
    """Return a hint for a feature that the language lacks, or an empty text."""
    if _NO_FILE.search(failed.message) and (hint := _file_hint(program)):
        return hint
    if keyword := _KEYWORD.search(failed.message):
        return KEYWORDS.get(keyword[1], "")
    if used := _JSON.search(failed.message):
        return f"Write {_JSON_NAMES[used[1]]} instead of json.{used[1]}."
    if _NO_MODULE.search(failed.message):
        return _module_hint(program)
    return next((text for words, text in _FIXED if words.search(failed.message)), "")


def _module_hint(program: Program) -> str:
    """Return a hint with the call of the tool that shares most words with the program."""
    missing = "This module is not available"
    if not (near := _related(program)):
        return f"{missing}. Call a tool instead; find one with searchTools."
    (space, function), *others = near
    names = function.parameters[: min(function.required, SHOWN_PARAMETERS)]
    call = f"{space}.{function.name}({', '.join(f'{name}=…' for name in names)})"
    written = f"await {call}" if program.engine == "python" else call
    more = ", ".join(f"{space}.{each.signature}" for space, each in others)
    return f"{missing}: remove its import. A tool may do it: write only result = {written}" + (
        f"\nOr use {more}." if more else ""
    )


def await_hint(failed: ProgramFailed, program: Program) -> str:
    """Return a hint with the awaited form of the program's own call."""
    call = tool_call(program, failed.line)
    written = f": (await {call})" if call else ""
    return f"Await a tool's call before using its value{written}."


def _file_hint(program: Program) -> str:
    """Return a hint with the call of a tool that does what the program does with a file."""
    source = program.source[:LONGEST_SOURCE]
    is_listed = _LISTED.search(source) is not None
    if not is_listed and not _OPENED.search(source):
        return ""
    is_written = _WRITTEN.search(source) is not None
    found = file_tool(
        (
            (each.name, each.parameters, (space.name, each))
            for space in program.tools
            for each in space.functions
        ),
        WRITER if is_written else LISTER if is_listed else READER,
    )
    if found is None:
        return "Programs have no files: get the data from a tool."
    texts = dict.fromkeys(_TEXT.findall(source))
    paths = [each for each in texts if "/" in each or "." in each][:MAX_PATHS]
    values = [json.dumps(each, ensure_ascii=False) for each in paths]
    many = len(values) > 1 and not is_written
    (space, function), parameter = found
    given = dict.fromkeys(function.parameters[: function.required], "…")
    given[parameter] = "path" if many else next(iter(values), "…")
    arguments = ", ".join(f"{name}={value}" for name, value in given.items())
    call = f"{space}.{function.name}({arguments})"
    written = f"await {call}" if program.engine == "python" else call
    if many:
        written = f"[{written} for path in [{', '.join(values)}]]"
    return f"Programs have no files of their own; a tool has them. Write result = {written}"


def _related(program: Program) -> list[tuple[str, Function]]:
    """Return tools that share words with the program, with servers; rare words count more."""
    used = set(_WORD.findall(program.source[:LONGEST_SOURCE].lower())) - _COMMON
    functions = ((space.name, each) for space in program.tools for each in space.functions)
    shared: list[tuple[tuple[str, Function], set[str]]] = []
    for space, each in islice(functions, MAX_TOOLS):
        text = f"{space} {each.name} {' '.join(each.parameters[:SHOWN_PARAMETERS])}"
        words = used.intersection(_WORD.findall(text.lower()))
        shared.append(((space, each), words))
    tools = Counter(word for _, words in shared for word in words)
    scores = [
        (-sum(1 / tools[word] for word in words), f"{found[0]}.{found[1].name}", found)
        for found, words in shared
        if words
    ]
    return [found for *_, found in sorted(scores, key=lambda score: score[:2])[:RELATED]]
