"""Which tools a set of patterns grants: pure, and the same wherever it is asked."""

from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache
from re import Pattern, escape
from re import compile as compile_pattern

SEPARATOR = "__"


def full_name(server: str, tool: str) -> str:
    """The name agents see on the shared endpoint, `server__tool`."""
    return f"{server}{SEPARATOR}{tool}"


def split_name(name: str) -> tuple[str, str]:
    """The server and the tool of a full name; the server is empty when there is no separator."""
    server, separator, tool = name.partition(SEPARATOR)
    return (server, tool) if separator else ("", name)


def granted(patterns: Iterable[str], name: str) -> bool:
    """Whether any pattern (`*` and `?` as in file names) covers the full name. None covers none."""
    return _compiled(tuple(patterns)).match(name) is not None


@lru_cache(maxsize=65_536)
def _compiled(patterns: tuple[str, ...]) -> Pattern[str]:
    if not patterns:
        return compile_pattern(r"(?!)")
    # A name may have a bracket in it: a pattern with one also covers the name that reads the same.
    literal = [escape(pattern) + r"\Z" for pattern in patterns if "[" in pattern]
    return compile_pattern("|".join([*map(translate, patterns), *literal]))
