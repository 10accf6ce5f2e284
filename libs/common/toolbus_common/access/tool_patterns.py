"""Matching of tool names against patterns (no I/O)."""

from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache
from re import Pattern, escape
from re import compile as compile_pattern

SEPARATOR = "__"


def full_name(server: str, tool: str) -> str:
    """Return the name of a tool on the shared endpoint, `server__tool`."""
    return f"{server}{SEPARATOR}{tool}"


def split_name(name: str) -> tuple[str, str]:
    """Return the server and the tool of a full name. Without a separator, the server is empty."""
    server, separator, tool = name.partition(SEPARATOR)
    return (server, tool) if separator else ("", name)


def granted(patterns: Iterable[str], name: str) -> bool:
    """Return whether any pattern matches the full name (`*` and `?` as in file names)."""
    return _compiled(tuple(patterns)).match(name) is not None


@lru_cache(maxsize=65_536)
def _compiled(patterns: tuple[str, ...]) -> Pattern[str]:
    if not patterns:
        return compile_pattern(r"(?!)")
    # A name may contain a bracket: a pattern with a bracket also matches the same name.
    literal = [escape(pattern) + r"\Z" for pattern in patterns if "[" in pattern]
    return compile_pattern("|".join([*map(translate, patterns), *literal]))
