"""Translate a statement for ClickHouse into one for SQLite, where both mean the same (no I/O)."""

import re
from collections.abc import Mapping
from functools import lru_cache

import re2

# A string literal, or a parameter `{name:Type}`.
_TOKEN = re.compile(r"'((?:[^'\\]|\\.|'')*)'|\{(\w+):\s*(\w+)(?:\([^{}]*\))?\}", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)|''", re.DOTALL)
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f"}
Value = str | int | float


def translated(sql: str, parameters: Mapping[str, str]) -> tuple[str, dict[str, Value]]:
    """Return the statement with SQLite's literals and parameters, and the typed values.

    In ClickHouse a backslash escapes the next character of a literal; in SQLite it does not.
    """
    values: dict[str, Value] = {}

    def token(match: re.Match[str]) -> str:
        literal, name, kind = match.groups()
        if name is None:
            plain = _ESCAPED.sub(_unescaped, literal).replace("'", "''")
            return f"'{plain}'"
        if name in parameters:
            values[name] = _typed(parameters[name], kind)
        return f":{name}"

    return _TOKEN.sub(token, sql), values


def is_like(text: str, pattern: str) -> bool:
    """Return whether a text matches a LIKE pattern of ClickHouse, which has escapes and case."""
    return _expression(pattern).fullmatch(text) is not None


@lru_cache(256)
def _expression(pattern: str) -> "re2._Regexp":
    """Return the expression of a LIKE pattern; it matches in linear time."""
    parts, escaped = [], False
    for character in pattern:
        if escaped or character not in "\\%_":
            parts.append(re2.escape(character))
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            parts.append(".*" if character == "%" else ".")
    return re2.compile("(?s)" + "".join(parts))


def _unescaped(match: re.Match[str]) -> str:
    character = match[1]
    return "'" if character is None else _CONTROL.get(character, character)


def _typed(value: str, kind: str) -> Value:
    if kind.startswith(("Int", "UInt")):
        return int(value)
    return float(value) if kind.startswith("Float") else value
