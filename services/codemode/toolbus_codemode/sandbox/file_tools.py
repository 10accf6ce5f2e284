"""Tools that read or write files or list directories, recognized by their names and parameters."""

import re
from collections.abc import Collection, Iterable
from itertools import islice
from operator import itemgetter
from typing import TypeVar

MAX_TRIED = 2_000  # tools inspected for one error
LONGEST_NAME = 64  # characters of a tool name that are inspected
PATHS = ("path", "file_path", "filepath", "filename", "file", "directory", "uri")
READER = re.compile(r"(?:^|_)(?:read|get|open|cat|load|view)_?(?:\w*_)?(?:file|document)(?:_|$)")
LISTER = re.compile(r"(?:^|_)(?:list|ls|read|get)_?(?:\w*_)?(?:directory|dir|folder|files)(?:_|$)")
WRITER = re.compile(r"(?:^|_)(?:write|save)_?(?:\w*_)?(?:file|document)(?:_|$)")
_OTHER = re.compile(r"(?:^|_)(?:write|edit|delete|remove|move|upload|create|info|metadata)(?:_|$)")
_PLAIN = re.compile(r"text|^(?:read|get|list)_?(?:file|directory|files|dir)$")
T = TypeVar("T")


def file_tool(
    candidates: Iterable[tuple[str, Collection[str], T]], names: re.Pattern[str]
) -> tuple[T, str] | None:
    """Return a tool whose name matches `names`, and its parameter for a path; text files first.

    A candidate is the name of a tool, its parameters, and the tool.
    """
    found: list[tuple[bool, T, str]] = []
    for name, parameters, tool in islice(candidates, MAX_TRIED):
        short = name[:LONGEST_NAME].lower()
        path = next((each for each in parameters if each in PATHS), None)
        if path and names.search(short) and (names is WRITER or not _OTHER.search(short)):
            found.append((not _PLAIN.search(short), tool, path))
    return min(found, key=itemgetter(0))[1:] if found else None
