"""Selection of operations by patterns for operationId, tag, method and path."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

_OF_METHOD = re.compile(r"([A-Z*]+) (/.*|\*)")


@dataclass(frozen=True, slots=True)
class Subject:
    """The properties of an operation that patterns are matched against."""

    operation_id: str
    tool: str
    tags: tuple[str, ...]
    method: str
    path: str


def chosen(subject: Subject, include: Iterable[str], exclude: Iterable[str]) -> bool:
    """Return whether a pattern in `include` matches the operation and none in `exclude` does."""
    return any(covers(each, subject) for each in include) and not any(
        covers(each, subject) for each in exclude
    )


def covers(pattern: str, subject: Subject) -> bool:
    """Return whether a pattern matches an operation.

    A pattern is `tag:x`, `GET /pets/*`, `/pets/*`, an operationId, or the name of a tool.
    """
    if pattern.startswith("tag:"):
        return any(fnmatchcase(tag, pattern[4:]) for tag in subject.tags)
    of_method = _OF_METHOD.fullmatch(pattern)
    if of_method:
        return fnmatchcase(subject.method, of_method[1]) and fnmatchcase(subject.path, of_method[2])
    if pattern.startswith("/"):
        return fnmatchcase(subject.path, pattern)
    return fnmatchcase(subject.operation_id, pattern) or fnmatchcase(subject.tool, pattern)
