"""Generator of the table of log events, from the logger calls in the code."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reference.markdown import code, table

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "every service": ROOT / "libs" / "common",
    **{path.name: path for path in sorted((ROOT / "services").iterdir()) if path.is_dir()},
    "toolbus up": ROOT / "cli",
}
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
LOGGERS = {"log", "logger", "_log"}
NAME = re.compile(r"[a-z_]+(\.[a-z_]+)+")


@dataclass(frozen=True, slots=True, order=True)
class LogEvent:
    """One call of a logger: event name, level, additional fields, and location."""

    name: str
    level: str
    where: str
    module: str
    fields: tuple[str, ...]


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield the level and the call of every log statement of a module."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in LOGGERS
            and node.func.attr in LEVELS
        ):
            yield node.func.attr, node


def catalogue() -> list[LogEvent]:
    """Return every log event, by name.

    Raises:
        ValueError: the name of an event is not a literal such as "server.connected".

    """
    found: set[LogEvent] = set()
    for where, directory in SOURCES.items():
        for path in sorted(directory.rglob("*.py")):
            for level, call in calls(path.read_text()):
                module = path.relative_to(ROOT).as_posix()
                shown = "error" if level == "exception" else level
                found |= {
                    LogEvent(name, shown, where, module, _fields(call))
                    for name in _names(call, module)
                }
    return sorted(found)


def _names(call: ast.Call, module: str) -> Iterator[str]:
    """Yield the possible names in the first argument: a literal, or one of two literals."""
    first = call.args[0]
    options = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
    for each in options:
        name = each.value if isinstance(each, ast.Constant) else None
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise ValueError(
                f'{module}:{call.lineno}: a log event needs a literal name such as "server.lost"'
            )
        yield name


def _fields(call: ast.Call) -> tuple[str, ...]:
    for keyword in call.keywords:
        if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
            keys = keyword.value.keys
            return tuple(str(each.value) for each in keys if isinstance(each, ast.Constant))
    return ()


def generated() -> str:
    """Return one row for each log event; two calls with one name and level share a row."""
    rows: dict[tuple[str, str, str], set[str]] = {}
    for each in catalogue():
        rows.setdefault((each.name, each.level, each.where), set()).update(each.fields)
    return table(
        ("event", "level", "written by", "fields"),
        (
            (code(name), level, where, ", ".join(map(code, sorted(fields))))
            for (name, level, where), fields in sorted(rows.items())
        ),
    )
